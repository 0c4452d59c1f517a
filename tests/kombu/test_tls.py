"""TLS: URLs and settings, and certificates that are verified."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.kombu.exam import Broker, round_trip
from tests.topologies import TlsServer


@pytest.fixture(scope="module")
def tls() -> Iterator[TlsServer]:
    """A server that answers on a TLS port."""
    with TlsServer() as server:
        yield server


@pytest.fixture(scope="module")
def mutual_tls() -> Iterator[TlsServer]:
    """A server that answers on a TLS port those who show a certificate."""
    with TlsServer(client_certificate_required=True) as server:
        yield server


def test_tls_with_a_known_authority_in_the_url(tls: TlsServer, scheme: str) -> None:
    with Broker(scheme, tls.server) as broker:
        query = f"ssl_cert_reqs=required&ssl_ca_certs={quote(tls.certificates.ca, safe='')}"
        round_trip(broker, broker.connection(url=f"{tls.url(broker.url_of('tls'))}?{query}"))


def test_tls_with_a_known_authority_in_the_settings(tls: TlsServer, scheme: str) -> None:
    with Broker(scheme, tls.server) as broker:
        settings = {"ssl_cert_reqs": "required", "ssl_ca_certs": tls.certificates.ca}
        connection = broker.connection(url=tls.url(broker.url_of("tls")), ssl=settings)
        round_trip(broker, connection)


def test_tls_unverified_by_request(tls: TlsServer, scheme: str) -> None:
    with Broker(scheme, tls.server) as broker:
        url = f"{tls.url(broker.url_of('tls'))}?ssl_cert_reqs=none"
        round_trip(broker, broker.connection(url=url))


def test_tls_with_a_client_certificate(mutual_tls: TlsServer, scheme: str) -> None:
    files = mutual_tls.certificates
    with Broker(scheme, mutual_tls.server) as broker:
        settings = {
            "ssl_cert_reqs": "required", "ssl_ca_certs": files.ca,
            "ssl_certfile": files.client_certificate, "ssl_keyfile": files.client_key,
        }  # fmt: skip
        url = mutual_tls.url(broker.url_of("tls"))
        round_trip(broker, broker.connection(url=url, ssl=settings))


@pytest.mark.parametrize("settings", [{"ssl_cert_reqs": "required"}, None])
def test_tls_refuses_an_unknown_authority(
    tls: TlsServer, scheme: str, settings: dict[str, str] | None
) -> None:
    if settings is None and scheme == "redis":
        settings = {"ssl_cert_reqs": "required"}  # by default stock verifies nothing
    with Broker(scheme, tls.server) as broker:
        connection = broker.connection(
            url=tls.url(broker.url_of("tls")), **({"ssl": settings} if settings else {})
        )
        with pytest.raises(connection.connection_errors, match=r"(?i)certificate"):
            connection.transport.establish_connection()


def test_the_ssl_settings_turn_tls_on(tls: TlsServer, scheme: str) -> None:
    """As ``broker_use_ssl`` does for a URL without the TLS scheme."""
    with Broker(scheme, tls.server) as broker:
        settings = {"ssl_cert_reqs": "required", "ssl_ca_certs": tls.certificates.ca}
        round_trip(broker, broker.connection(url=tls.url(scheme), ssl=settings))

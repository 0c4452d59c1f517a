"""Servers that are named in ways that make no sense: said clearly, and without their passwords."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from phonon_kombu.errors import ConfigurationError
from phonon_kombu.phonon.connections import Connections
from phonon_kombu.store.addresses import host_and_port, pool_of_options, pool_of_url
from phonon_kombu.thoonk import Thoonk
from phonon_kombu.thoonk.aio import Thoonk as AioThoonk

#: Passwords with signs that part a URL, and one of those that look like such signs.
SIGNS = ("12?SECRET", "SEC#RET", "SEC/RET", "SEC?x=RET", "12/SECRET", "SEC\u2100RET", "SECRET[")


@pytest.mark.parametrize("password", SIGNS)
@pytest.mark.parametrize(
    "form",
    ["phonon://user:{}@h", "redis://:{}@h:6379/0", "phonons://:{}@h", "redis+socket://:{}@/tmp/x",
     "phonon+sentinel://:{}@h?master_name=m", "phonon+cluster://:{}@h:1,i:2",
     "phonon+sentinel://h:1;phonon+sentinel://:{}@h?master_name=m"],
)  # fmt: skip
def test_no_part_of_a_password_is_shown(form: str, password: str) -> None:
    with pytest.raises(ConfigurationError, match="%40") as caught:
        Connections(form.format(password))
    assert not any(part in repr(caught.value) for part in ("SEC", "RET", "12"))
    logged = "".join(traceback.format_exception(None, caught.value, caught.value.__traceback__))
    assert "SEC" not in logged and "RET" not in logged


@pytest.mark.parametrize("host", ["user:SECRET@h", "h:SECRET", "SECRET@h:6379"])
def test_no_part_of_a_password_is_shown_for_a_host(host: str) -> None:
    for kind in (Thoonk, AioThoonk):
        with pytest.raises(ConfigurationError, match=r"port|user:password@host") as caught:
            kind(host)
        assert "SECRET" not in repr(caught.value)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"url": "redis+socket://tmp/x"}, "phonon\\+socket:///path/to/redis.sock"),
        ({"url": "unix://"}, "phonon\\+socket:///path/to/redis.sock"),
        ({"url": "phonons://h?ssl_cert_reqs=bogus"}, "ssl_cert_reqs='bogus'.*CERT_REQUIRED"),
        ({"url": "phonon://h?protocol=9"}, "protocol='9'.*2, 3"),
        ({"url": "phonon://h?socket_timeout=soon"}, "socket_timeout='soon'.*positive number"),
        ({"host": "h", "ssl": True, "ssl_cert_reqs": "bogus"}, "bogus"),
        ({"host": "[::1]:x"}, "port"),
    ],
)
def test_what_is_wrong_is_said(named: dict[str, Any], said: str) -> None:
    for kind in (Thoonk, AioThoonk):
        with pytest.raises(ConfigurationError, match=said):
            kind(**named)


def test_legal_forms() -> None:
    """IPv6, a path with any signs, and options that the session decides for itself."""
    assert host_and_port("[::1]:7", 1) == ("::1", "7")
    assert host_and_port("[::1]", 1) == host_and_port("::1", 1) == ("::1", 1)
    assert pool_of_url("unix:///tmp/a@b").connection_kwargs["path"] == "/tmp/a@b"
    kwargs = pool_of_url("phonon://h?protocol=3&decode_responses=true").connection_kwargs
    assert (kwargs["protocol"], kwargs["decode_responses"]) == (2, False)


def test_certificates_must_be_the_hosts() -> None:
    """Also with a redis-py whose default is otherwise."""
    for pool in (pool_of_url("phonons://h"), pool_of_options(host="h", ssl=True)):
        assert pool.connection_kwargs["ssl_check_hostname"] is True
    for pool in (
        pool_of_url("phonons://h?ssl_check_hostname=false"),
        pool_of_url("phonons://h?ssl_cert_reqs=CERT_NONE"),
    ):
        assert not pool.connection_kwargs.get("ssl_check_hostname")

"""An operator reaches every server that the transport reaches, and reaches it again."""

from __future__ import annotations

import threading
from urllib.parse import quote

from celery import Celery

from phonon_kombu.control import Operator
from tests.servers import RedisServer, wait_for
from tests.topologies import SentinelSetup, TlsServer


def published(url: str, **settings: object) -> Celery:
    """An application with a task that it has sent."""
    app = Celery("shop", broker=url, set_as_current=False)
    app.conf.update(settings)
    app.send_task("shop.add", task_id="t")
    return app


def test_tls() -> None:
    with TlsServer() as tls:
        query = f"ssl_cert_reqs=required&ssl_ca_certs={quote(tls.certificates.ca, safe='')}"
        app = published(f"{tls.url('phonons')}?{query}")
        with app, Operator(app) as operator:
            assert operator.stall("t").done == 1


def test_a_unix_socket(redis_server: RedisServer, redis_db: str) -> None:
    with RedisServer() as server:
        app = published(f"phonon+socket://{server.socket_path}")
        with app, Operator(app) as operator:
            assert operator.get("t").state == "ready"


def test_sentinel_and_a_failover() -> None:
    with SentinelSetup() as setup:
        options = {"master_name": setup.master_name}
        app = published(setup.url("phonon+sentinel"), broker_transport_options=options)
        with app, Operator(app) as operator:
            assert operator.get("t").state == "ready"
            wait_for(
                lambda: setup.replica.client().dbsize() == setup.master.client().dbsize(),
                message="the replica is behind",
            )
            setup.fail_over()
            assert operator.get("t").state == "ready"
            assert operator.stall("t").done == 1


def test_a_server_that_was_restarted() -> None:
    with RedisServer("--appendonly", "yes") as server:
        app = published(server.url("phonon"))
        with app, Operator(app) as operator:
            assert operator.get("t").state == "ready"
            server.restart()
            assert operator.get("t").state == "ready"
            server.restart()
            assert operator.stall("t").done == 1


def test_between_threads(redis_server: RedisServer, redis_db: str) -> None:
    app = published(f"phonon://{redis_db}")
    found: list[str] = []
    with app, Operator(app) as operator:
        threads = [
            threading.Thread(
                target=lambda: found.extend(operator.get("t").state for _ in range(50))
            )
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert found == ["ready"] * 400

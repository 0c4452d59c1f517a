"""How the backend is found and connected."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from phonon_kombu.backend import PhononBackend, PhononSentinelBackend
from tests.servers import RedisServer

PROGRAM = """
import sys
from celery import Celery
app = Celery("x", broker="memory://", backend=sys.argv[1])
app.backend.store_result("id", 7, "SUCCESS")
assert app.AsyncResult("id").get(timeout=10) == 7
print(type(app.backend).__name__)
"""


def run(url: str) -> str:
    """Use the backend of `url` in a process that imports nothing of ours."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, url],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_process_that_imports_nothing(redis_server: RedisServer, tmp_path: Path) -> None:
    assert run(redis_server.url("phonon", 3)) == "PhononBackend"
    if redis_server.socket_path is not None:
        assert run(f"phonon+socket://{redis_server.socket_path}?virtual_host=3") == "PhononBackend"
    assert run(f"phonon+embedded://{tmp_path}") == "PhononBackend"


def make(url: str, **settings: Any) -> Any:
    app = Celery("x", broker="memory://", backend=url)
    app.conf.update(settings)
    return app.backend


def test_tls_is_verified_unless_said_otherwise() -> None:
    backend = make("phonons://host:1234/2")
    assert issubclass(backend.connparams["connection_class"], redis.SSLConnection)
    assert backend.connparams["ssl_cert_reqs"].name == "CERT_REQUIRED"
    backend = make("phonons://host:1234/2?ssl_cert_reqs=none")
    assert backend.connparams["ssl_cert_reqs"].name == "CERT_NONE"


def test_what_stands_in_the_url() -> None:
    params = make("phonon://user:p%40ss@host:1234/2").connparams
    wanted = {"username": "user", "password": "p@ss", "host": "host", "port": 1234, "db": 2}
    assert {name: params[name] for name in wanted} == wanted


def test_a_password_is_not_shown() -> None:
    assert "secret" not in make("phonon://:secret@host:1234/2").as_uri()
    sentinel = make("phonon+sentinel://:secret@h1:1;phonon+sentinel://:secret@h2:2")
    assert "secret" not in sentinel.as_uri()


def test_sentinels() -> None:
    backend = make(
        "phonon+sentinel://h1:26379/2;phonon+sentinel://h2:26380/2",
        result_backend_transport_options={"master_name": "m"},
    )
    assert isinstance(backend, PhononSentinelBackend)
    assert [(one["host"], one["port"]) for one in backend.connparams["hosts"]] == [
        ("h1", 26379),
        ("h2", 26380),
    ]
    assert backend.connparams["db"] == 2


def test_a_copy_is_the_same() -> None:
    import pickle

    backend = make("phonon://host:1234/2")
    backend.app.set_current()
    copy = pickle.loads(pickle.dumps(backend))
    assert isinstance(copy, PhononBackend)
    assert copy.connparams["port"] == 1234


@pytest.mark.parametrize("url", ["phonon://host:1/0", "phonon+socket:///nowhere"])
def test_making_a_backend_connects_to_nothing(url: str) -> None:
    assert isinstance(make(url), PhononBackend)

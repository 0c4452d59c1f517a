"""A server that says nothing more: the wait for its reply has an end, under green threads too."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
if sys.argv[1] == "gevent":
    from gevent import monkey; monkey.patch_all()
if sys.argv[1] == "eventlet":
    import eventlet; eventlet.monkey_patch()
import socket, time
import redis
from phonon_kombu.store import patience
from phonon_kombu.store.patience import can_read, limit_silence

listener = socket.create_server(("127.0.0.1", 0))
connection = redis.Connection(port=listener.getsockname()[1], socket_timeout=None)
connection._sock = socket.create_connection(listener.getsockname())
connection._parser.on_connect(connection)
limit_silence(connection, 1)
if sys.argv[2] == "asked":
    patience.SILENCE_SECONDS = 1
    assert not can_read(connection, 0.01)
started = time.monotonic()
try:
    connection.read_response()
except (redis.TimeoutError, redis.ConnectionError, OSError) as error:
    print(type(error).__name__, round(time.monotonic() - started, 1))
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("threads", "before"),
    [("real", "new"), ("gevent", "new"), ("eventlet", "new"), ("gevent", "asked")],
)
def test_a_silent_server_is_given_up(threads: str, before: str) -> None:
    """Also one of which it was asked before whether anything could be read."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, threads, before],
        capture_output=True, text=True, timeout=15,
    )  # fmt: skip
    assert done.stdout, done.stderr
    _, seconds = done.stdout.split()
    assert 0.9 <= float(seconds) < 10

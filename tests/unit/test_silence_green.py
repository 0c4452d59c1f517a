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
from phonon_kombu.store.client import limit_silence

listener = socket.create_server(("127.0.0.1", 0))
connection = redis.Connection(port=listener.getsockname()[1], socket_timeout=None)
connection._sock = socket.create_connection(listener.getsockname())
connection._parser.on_connect(connection)
limit_silence(connection, 1)
started = time.monotonic()
try:
    connection.read_response()
except (redis.TimeoutError, redis.ConnectionError, OSError) as error:
    print(type(error).__name__, round(time.monotonic() - started, 1))
"""


@pytest.mark.timeout(60)
@pytest.mark.parametrize("threads", ["real", "gevent", "eventlet"])
def test_a_silent_server_is_given_up(threads: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, threads],
        capture_output=True, text=True, timeout=15,
    )  # fmt: skip
    assert done.stdout, done.stderr
    _, seconds = done.stdout.split()
    assert 0.9 <= float(seconds) < 10

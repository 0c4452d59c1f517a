"""Helpers of the tests of embedded servers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from phonon_kombu.store.embedded import EmbeddedAddress
from tests.servers import DEFAULT_SERVER, server_binaries, server_name, wait_for


@pytest.fixture(name="directory")
def directory_fixture() -> Iterator[Path]:
    """A directory with a path short enough for a Unix socket, wherever pytest keeps its own."""
    with tempfile.TemporaryDirectory(prefix="phk-", ignore_cleanup_errors=True) as path:
        yield Path(path)


@pytest.fixture(name="real_server")
def real_server_fixture(monkeypatch: pytest.MonkeyPatch) -> str:
    """A real Redis as the embedded server, of the kind that this test run is for."""
    name = DEFAULT_SERVER if server_name() == "fakeredis" else server_name()
    monkeypatch.setenv("PHONON_EMBEDDED_SERVER", server_binaries()[name])
    return name


def client(address: EmbeddedAddress) -> redis.Redis:
    return redis.Redis(**address.client_options())


def ended(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_ended(address: EmbeddedAddress, timeout_seconds: float = 15.0) -> None:
    for pid in (address.pid, address.keeper_pid):
        wait_for(
            lambda pid=pid: ended(pid),
            timeout_seconds,
            message=f"process {pid} of {address.server} is still running",
        )

"""The embedded server of a directory is that directory's own: no other is used, or ended."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
import redis

from phonon_kombu.store import _redis_process, embedded
from phonon_kombu.store._redis_process import RedisProcess, StartFailed
from phonon_kombu.store.embedded import EmbeddedServer
from tests.embedded import (  # noqa: F401
    client,
    directory_fixture,
    ended,
    real_server_fixture,
    wait_until_ended,
)
from tests.servers import RedisServer, freeze, server_binaries, wait_for

#: Below it no path fits a Unix socket: the server listens at a loopback port.
DEEP = "/".join(["a-long-name-of-a-directory"] * 5)


@pytest.mark.parametrize("below", ["", DEEP])
def test_a_copied_directory_has_a_server_of_its_own(
    real_server: str,
    directory: Path,
    below: str,
) -> None:
    first, second = directory / "first" / below, directory / "second" / below
    with EmbeddedServer(first, linger_seconds=0.0) as server:
        shutil.copytree(first, second, ignore=shutil.ignore_patterns("*.sock"))
        with EmbeddedServer(second, linger_seconds=0.0) as other:
            address = other.address
            assert address.pid != server.address.pid
            client(server.address).set("key", "first")
            assert client(address).get("key") is None
        wait_until_ended(address)
        assert client(server.address).ping()
        if below:
            assert str(server.address.password) not in repr(server.address)
    wait_until_ended(server._address or address)


@pytest.mark.parametrize("named", ["socket", "password", "no password"])
def test_a_server_of_another_is_left_alone(
    real_server: str,
    directory: Path,
    redis_server: RedisServer,
    named: str,
) -> None:
    """It listens where the directory's server did, until that and its keeper were killed."""
    by_socket = named == "socket"
    address: dict[str, Any] = {
        "socket_path": redis_server.socket_path if by_socket else None,
        "host": None if by_socket else "127.0.0.1",
        "port": None if by_socket else redis_server.port,
        "password": "secret" if named == "password" else None,
        "server": "Redis", "pid": redis_server.pid, "keeper_pid": redis_server.pid,
    }  # fmt: skip
    (directory / "users.lock").touch()
    (directory / "server.json").write_text(json.dumps(address))
    with EmbeddedServer(directory, linger_seconds=0.0) as server:
        own = server.address
        assert own.pid != redis_server.pid and client(own).ping()
    wait_until_ended(own)
    assert redis_server.client().ping()


@pytest.mark.parametrize("adopted", [False, True])
def test_a_directory_made_again_has_a_server_of_its_own(
    real_server: str,
    directory: Path,
    adopted: bool,
) -> None:
    """The keeper of the one that was removed ends its own server only, and removes no files."""
    path = directory / "data"
    with EmbeddedServer(path, linger_seconds=0.0) as server:
        if adopted:
            os.kill(server.address.keeper_pid, signal.SIGKILL)
            wait_for(lambda: ended(server.address.keeper_pid))
            server.start()
        first = server.address
        shutil.rmtree(path)
        with EmbeddedServer(path, linger_seconds=0.0) as other:
            second = other.address
            assert second.pid != first.pid
            server.stop()
            wait_until_ended(first)
            assert client(second).ping()
            assert other.start() == second
    wait_until_ended(second)


def test_a_removed_directory_is_made_again_for_who_holds_it(
    real_server: str,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(embedded, "LINGER_SECONDS", 0.0)
    path = directory / "data"
    try:
        first = embedded.acquire(path)
        shutil.rmtree(path)
        second = embedded.acquire(path)
        assert second.pid != first.pid and client(second).ping()
        assert embedded.acquire(path) == second
    finally:
        embedded.release(path)
    wait_until_ended(first)
    wait_until_ended(second)


def test_the_default_stays_where_the_process_began(
    real_server: str,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    monkeypatch.setattr(embedded, "LINGER_SECONDS", 0.0)
    found = []
    try:
        for name in ("one", "two"):
            (directory / name).mkdir()
            monkeypatch.chdir(directory / name)
            found.append(embedded.acquire())
        assert found[0] == found[1]
        shutil.rmtree(found[0].directory)
        found.append(embedded.acquire())
        assert found[2].directory == found[0].directory
    finally:
        embedded.release()
    for address in found:
        wait_until_ended(address)


def test_a_temporary_server_ends_though_its_keeper_was_killed(
    real_server: str,
) -> None:
    with EmbeddedServer(temporary=True) as server:
        address = server.address
        os.kill(address.keeper_pid, signal.SIGKILL)
        wait_for(lambda: ended(address.keeper_pid))
    wait_until_ended(address)
    assert not Path(address.directory).exists()


def test_a_server_that_is_saving_is_not_killed(
    real_server: str,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_redis_process, "STOP_SECONDS", 0.25)
    monkeypatch.setattr(_redis_process, "REPLY_SECONDS", 0.25)
    server = RedisProcess({
        "directory": str(directory), "socket_path": str(directory / "redis.sock"),
        "persist": "rdb", "binary": server_binaries()[real_server],
    })  # fmt: skip
    address = server.start()
    with redis.Redis(unix_socket_path=address["socket_path"]) as made:
        made.mset({f"key {n}": os.urandom(16_000) for n in range(40)})
        made.config_set("rdb-key-save-delay", 20_000)  # microseconds: 0.8 s for all
    server.stop(address)
    assert (directory / "dump.rdb").stat().st_size > 40 * 16_000


def test_the_keeper_finds_modules_in_the_order_of_its_caller(
    real_server: str,
    directory: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What lies beside the package hides no module of Python's."""
    packages = directory / "packages"
    packages.mkdir()
    store = Path(str(embedded.__file__)).parent
    (packages / "phonon_kombu").symlink_to(store.parent)
    (packages / "json.py").write_text("raise RuntimeError('not this one')")
    monkeypatch.setattr(embedded, "__file__", str(packages / "phonon_kombu/store/embedded.py"))
    monkeypatch.setattr(sys, "path", [*sys.path, str(packages)])
    with EmbeddedServer(directory / "data", linger_seconds=0.0) as server:
        address = server.address
    wait_until_ended(address)


def test_a_port_that_is_taken_and_silent_is_an_error(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server that holds the data might be busy there: no second one is started."""
    monkeypatch.setattr(_redis_process, "ADOPT_SECONDS", 0.0)
    monkeypatch.setattr(_redis_process, "REPLY_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = {
            "socket_path": None, "host": "127.0.0.1", "port": silent.getsockname()[1],
            "password": "secret", "pid": os.getpid(),
        }  # fmt: skip
        with pytest.raises(StartFailed, match=f"port {address['port']}.*is taken"):
            RedisProcess({"directory": str(directory)}).adopt(address)


def test_a_busy_server_is_adopted_and_ended(
    real_server: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What listens in the directory holds its data, also if it says nothing."""
    monkeypatch.setattr(_redis_process, "STOP_SECONDS", 0.1)
    monkeypatch.setattr(_redis_process, "REPLY_SECONDS", 0.05)
    settings = {
        "directory": str(directory), "socket_path": str(directory / "redis.sock"),
        "persist": "rdb", "binary": server_binaries()[real_server],
    }  # fmt: skip
    started, adopting = RedisProcess(settings), RedisProcess(settings)
    address = started.start()
    try:
        freeze(started.pid)
        assert adopting.adopt(address | {"pid": started.pid})
        adopting.stop(address)
        wait_for(lambda: ended(started.pid))
    finally:
        started.stop(address)

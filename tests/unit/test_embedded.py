"""The embedded server: shared by processes, gone after them, brought back when it died."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis
from kombu import Connection
from redis.backoff import NoBackoff
from redis.retry import Retry

from phonon_kombu.errors import EmbeddedServerError
from phonon_kombu.store import embedded
from phonon_kombu.store.embedded import EmbeddedAddress, EmbeddedServer
from phonon_kombu.store.server_binary import find_server
from tests.embedded import (  # noqa: F401
    client,
    directory_fixture,
    ended,
    real_server_fixture,
    wait_until_ended,
)
from tests.servers import server_binaries, server_name, wait_for

LINGER_SECONDS = 0.6
NO_RETRY = Retry(NoBackoff(), 0)

#: A user of the server in a process of its own: prints the address, stays until its input ends.
USER = f"""
import dataclasses, json, sys
from phonon_kombu.store.embedded import EmbeddedServer
address = EmbeddedServer(sys.argv[1] or None, linger_seconds={LINGER_SECONDS}).start()
print(json.dumps(dataclasses.asdict(address)), flush=True)
sys.stdin.read()
"""

#: Comes and goes as fast as it can; fails unless the server it is handed answers and keeps going.
VISITOR = """
import random, sys, time, redis
from phonon_kombu.store.embedded import EmbeddedServer
for _ in range(int(sys.argv[2])):
    time.sleep(random.uniform(0, 0.6))  # so that the server has often just been left
    with EmbeddedServer(sys.argv[1], linger_seconds=0.0) as server:
        client = redis.Redis(**server.address.client_options())
        client.incr("visits")
        client.close()
"""


@pytest.fixture
def any_server(monkeypatch: pytest.MonkeyPatch) -> str:
    """The embedded server that this test run is for, fakeredis included."""
    name = server_name()
    monkeypatch.setenv("PHONON_EMBEDDED_SERVER", server_binaries().get(name, name))
    return name


@pytest.fixture
def users() -> Iterator[list[subprocess.Popen[str]]]:
    """The processes that a test started; none outlives it."""
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.communicate()


class Users:
    """Starts processes that use the server of one directory."""

    def __init__(self, started: list[subprocess.Popen[str]], directory: str) -> None:
        self.started = started
        self.directory = directory

    def launch(self, **environment: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", USER, self.directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        self.started.append(process)
        return process

    @staticmethod
    def address(process: subprocess.Popen[str]) -> EmbeddedAddress:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "the process ended without an address"
        return EmbeddedAddress(**json.loads(line))

    def join(self, **environment: str) -> tuple[subprocess.Popen[str], EmbeddedAddress]:
        process = self.launch(**environment)
        return process, self.address(process)


@pytest.fixture
def project(users: list[subprocess.Popen[str]], directory: Path) -> Users:
    return Users(users, str(directory / "data"))


def test_processes_of_one_directory_share_one_server(any_server: str, project: Users) -> None:
    _, first = project.join()
    client(first).set("greeting", "hello")
    _, second = project.join()
    assert second == first
    assert client(second).get("greeting") == b"hello"


def test_many_processes_starting_at_once_start_one_server(any_server: str, project: Users) -> None:
    started = [project.launch() for _ in range(8)]
    addresses = {project.address(process) for process in started}
    assert len(addresses) == 1
    assert client(addresses.pop()).ping()


def test_server_ends_after_its_last_user_and_not_before(any_server: str, project: Users) -> None:
    first, address = project.join()
    second, _ = project.join()
    first.communicate(timeout=20)
    # Longer than the server would linger without users.
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(LINGER_SECONDS + 1.5)
    assert client(address).ping()
    second.communicate(timeout=20)
    wait_until_ended(address)


def test_killed_users_are_noticed(any_server: str, project: Users) -> None:
    first, address = project.join()
    second, _ = project.join()
    first.kill()
    second.kill()
    wait_until_ended(address)
    assert not (Path(project.directory) / "server.json").exists()


def test_forked_child_counts_as_a_user(any_server: str, directory: Path) -> None:
    server = EmbeddedServer(directory, linger_seconds=0.0)
    address = server.start()
    read_fd, write_fd = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write_fd)
        os.read(read_fd, 1)
        os._exit(0)
    os.close(read_fd)
    server.stop()
    try:
        keeper = psutil.Process(address.keeper_pid)
        with pytest.raises(psutil.TimeoutExpired):
            keeper.wait(1.5)
        assert client(address).ping()
    finally:
        os.close(write_fd)
        os.waitpid(child, 0)
    wait_until_ended(address)


def test_a_dead_server_is_replaced(real_server: str, project: Users) -> None:
    _, first = project.join()
    client(first).set("kept", "yes")
    os.kill(first.pid, signal.SIGKILL)
    _, second = project.join()
    assert second.pid != first.pid
    assert client(second).get("kept") == b"yes", "a directory that the user named keeps its data"


def test_a_dead_server_is_replaced_for_a_process_that_holds_it(
    real_server: str, directory: Path
) -> None:
    try:
        first = embedded.acquire(directory)
        os.kill(first.pid, signal.SIGKILL)
        wait_for(lambda: ended(first.pid))
        second = embedded.acquire(directory)
        assert second.pid != first.pid
        assert client(second).ping()
    finally:
        embedded.release(directory)
    wait_until_ended(second)


def test_everything_killed_leaves_nothing_in_the_way(any_server: str, project: Users) -> None:
    user, first = project.join()
    for pid in {first.keeper_pid, first.pid}:
        os.kill(pid, signal.SIGKILL)
    user.kill()
    wait_until_ended(first)
    assert (Path(project.directory) / "server.json").exists(), "nobody was left to clean up"
    _, second = project.join()
    assert second.keeper_pid != first.keeper_pid
    assert client(second).ping()


def test_a_server_whose_keeper_died_is_adopted(real_server: str, project: Users) -> None:
    first_user, first = project.join()
    client(first).set("kept", "yes")
    os.kill(first.keeper_pid, signal.SIGKILL)
    wait_for(lambda: ended(first.keeper_pid))
    second_user, second = project.join()
    assert (second.pid, second.server) == (first.pid, first.server)
    assert second.keeper_pid != first.keeper_pid
    assert client(second).get("kept") == b"yes"
    first_user.communicate(timeout=20)
    second_user.communicate(timeout=20)
    wait_until_ended(second)


def test_nobody_is_handed_a_server_that_is_about_to_stop(any_server: str, directory: Path) -> None:
    rounds, visitors = 6, 4
    started = [
        subprocess.Popen([sys.executable, "-c", VISITOR, str(directory / "d"), str(rounds)])
        for _ in range(visitors)
    ]
    assert [process.wait(90) for process in started] == [0] * visitors
    if any_server == "fakeredis":
        return  # it keeps nothing between its lives, so there is nothing to add up
    with EmbeddedServer(directory / "d", linger_seconds=0.0) as server:
        address = server.address
        assert client(address).get("visits") == b"%d" % (rounds * visitors)
    wait_until_ended(address)


def test_default_directory_keeps_what_a_finished_process_queued(
    real_server: str, users: list[subprocess.Popen[str]], directory: Path
) -> None:
    project = Users(users, "")
    user, first = project.join(TMPDIR=str(directory))
    assert Path(first.directory).parent.parent == directory
    client(first).lpush("queue", "task")
    user.communicate(timeout=20)
    wait_until_ended(first)
    _, second = project.join(TMPDIR=str(directory))
    assert second.pid != first.pid
    assert client(second).lrange("queue", 0, -1) == [b"task"]


def test_default_directory_depends_on_the_working_directory(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    found = []
    for name in ("one", "two", "one"):
        (directory / name).mkdir(exist_ok=True)
        monkeypatch.chdir(directory / name)
        found.append(embedded.default_directory())
    assert found[0] == found[2] != found[1]
    assert Path(found[0]).stat().st_mode & 0o777 == 0o700


def test_default_directory_of_somebody_else_is_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    path = Path(embedded.default_directory())
    path.chmod(0o755)
    with pytest.raises(EmbeddedServerError, match="not a private directory"):
        EmbeddedServer().start()
    path.rmdir()
    path.symlink_to(directory)
    with pytest.raises(EmbeddedServerError, match="not a private directory"):
        EmbeddedServer().start()


def test_temporary_server_leaves_nothing_behind(any_server: str) -> None:
    with EmbeddedServer(temporary=True) as server:
        address = server.address
        client(address).set("key", "value")
    assert not Path(address.directory).exists()
    wait_until_ended(address, 2.0)
    with pytest.raises(EmbeddedServerError):
        server.address  # noqa: B018


def test_temporary_server_of_a_killed_process_is_removed(
    any_server: str, users: list[subprocess.Popen[str]]
) -> None:
    project = Users(users, "")
    process = subprocess.Popen(
        [sys.executable, "-c", USER.replace("sys.argv[1] or None", "temporary=True")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    users.append(process)
    # Bound to no name, the server object may be collected; its hold must not go with it.
    address = project.address(process)
    assert client(address).ping()
    process.kill()
    wait_until_ended(address)
    wait_for(lambda: not Path(address.directory).exists())


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_while_starting_leaves_nothing_behind(
    real_server: str, users: list[subprocess.Popen[str]], directory: Path, signum: signal.Signals
) -> None:
    binary = server_binaries()[real_server]
    slow = script(directory / "slow", f'[ "$1" = --version ] || sleep 1; exec {binary} "$@"')
    process = subprocess.Popen(
        [sys.executable, "-c", USER.replace("sys.argv[1] or None", "temporary=True")],
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"PHONON_EMBEDDED_SERVER": str(slow), "TMPDIR": str(directory)},
    )
    users.append(process)
    # Its start: the configuration is there, the server is not.
    wait_for(lambda: list(directory.glob("phonon-*/phonon-redis.conf")))
    process.send_signal(signum)
    process.wait(20)
    wait_for(lambda: not processes_that_name(directory), 10, message="a process was left behind")
    assert not list(directory.glob("phonon-*"))


def test_directory_removed_under_the_server_does_not_keep_it_alive(
    any_server: str, project: Users
) -> None:
    user, address = project.join()
    shutil.rmtree(project.directory)
    user.communicate(timeout=20)
    wait_until_ended(address, 10)


def processes_that_name(path: Path) -> list[psutil.Process]:
    """Running processes with ``path`` in their command line."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(path) in word for word in process.info["cmdline"] or ()):
            found.append(process)
    return found


def test_two_temporary_servers_are_two(any_server: str) -> None:
    with EmbeddedServer(temporary=True) as one, EmbeddedServer(temporary=True) as two:
        client(one.address).set("key", "one")
        assert client(two.address).get("key") is None


def test_path_too_long_for_a_socket_means_a_loopback_port(
    real_server: str, directory: Path
) -> None:
    deep = directory.joinpath(*["a-long-name-of-a-directory"] * 5)
    with EmbeddedServer(deep, linger_seconds=0.0) as server:
        address = server.address
        assert (address.socket_path, address.host) == (None, "127.0.0.1")
        assert client(address).ping()
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(host=address.host, port=address.port, retry=NO_RETRY).ping()
        assert f"@127.0.0.1:{address.port}/3" in address.url(db=3)
        _publish_and_get(address)
    wait_until_ended(address)


def test_path_with_spaces_and_signs_works_in_a_url(real_server: str, directory: Path) -> None:
    with EmbeddedServer(directory / 'my "own" 100%20 data', linger_seconds=0.0) as server:
        address = server.address
        _publish_and_get(address)
    wait_until_ended(address)


def _publish_and_get(address: EmbeddedAddress) -> None:
    with Connection(address.url("redis")) as connection:
        queue = connection.SimpleQueue("letters")
        queue.put({"n": 1})
        message = queue.get(timeout=5)
        assert message.payload == {"n": 1}
        message.ack()
        queue.close()


def test_fakeredis_serves_scripts_and_blocking_reads(directory: Path) -> None:
    with EmbeddedServer(directory, server="fakeredis", linger_seconds=0.0) as server:
        assert server.address.server.startswith("fakeredis")
        connection = client(server.address)
        assert connection.eval("return redis.call('INCRBY', KEYS[1], ARGV[1])", 1, "n", 3) == 3
        connection.zadd("wake", {"go": 1})
        assert connection.bzpopmin("wake", 5) == (b"wake", b"go", 1.0)
        _publish_and_get(server.address)


def test_fakeredis_goes_on_after_an_error_reply(directory: Path) -> None:
    with EmbeddedServer(directory, server="fakeredis", linger_seconds=0.0) as server:
        options = server.address.client_options()
        connection = redis.Redis(**options, single_connection_client=True, retry=NO_RETRY)
        number = connection.client_id()
        with pytest.raises(redis.exceptions.NoScriptError):
            connection.evalsha("0" * 40, 0)
        with pytest.raises(redis.ResponseError, match=r"^NOTCLAIMED$"):
            connection.eval("return redis.error_reply('NOTCLAIMED')", 0)
        assert connection.info("server")["redis_version"] == "8.0.0"
        assert connection.client_id() == number, "the connection was broken in between"


def test_fakeredis_with_a_named_directory_says_what_it_does_not_keep(
    directory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with EmbeddedServer(directory, server="fakeredis", linger_seconds=0.0):
        pass
    assert "keeps nothing on disk" in caplog.text


def test_directory_that_cannot_be_made_or_used(directory: Path) -> None:
    (directory / "file").write_text("")
    with pytest.raises(EmbeddedServerError, match="cannot make the directory"):
        EmbeddedServer(directory / "file" / "below").start()
    with pytest.raises(EmbeddedServerError, match="cannot make the directory"):
        EmbeddedServer(directory / "file").start()


def test_a_directory_with_files_of_somebody_else_is_refused(directory: Path) -> None:
    (directory / "redis.conf").write_text("port 6379\n")
    with pytest.raises(EmbeddedServerError, match=r"redis\.conf.*name an empty directory"):
        EmbeddedServer(directory).start()
    assert (directory / "redis.conf").read_text() == "port 6379\n"
    assert len(list(directory.iterdir())) == 1


def test_the_configuration_takes_no_name_of_the_users(real_server: str, directory: Path) -> None:
    with EmbeddedServer(directory, linger_seconds=0.0):
        (directory / "redis.conf").write_text("the user's")
    wait_for(lambda: not (directory / "server.json").exists(), 30)
    with EmbeddedServer(directory, linger_seconds=0.0):
        pass
    assert (directory / "redis.conf").read_text() == "the user's"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_directory_that_others_may_write_to_is_refused(directory: Path, mode: int) -> None:
    directory.chmod(mode)
    with pytest.raises(EmbeddedServerError, match=f"not a private directory.*mode {mode:o}.*go-w"):
        EmbeddedServer(directory).start()
    assert not list(directory.iterdir())


def test_a_directory_that_others_may_read_is_used(any_server: str, directory: Path) -> None:
    directory.chmod(0o755)
    with EmbeddedServer(directory, linger_seconds=0.0) as server:
        assert redis.Redis(**server.address.client_options()).ping()


def test_a_named_directory_of_another_user_is_refused(directory: Path) -> None:
    foreign = Path("/")
    if os.getuid() == 0:
        foreign = directory / "theirs"
        foreign.mkdir(mode=0o755)
        os.chown(foreign, 65534, -1)
    before = sorted(foreign.iterdir())
    with pytest.raises(EmbeddedServerError, match=r"not a private directory.*belongs to"):
        EmbeddedServer(foreign).start()
    assert sorted(foreign.iterdir()) == before


def test_data_that_the_server_cannot_read_are_an_error_with_its_log(
    real_server: str, directory: Path
) -> None:
    (directory / "users.lock").touch()
    (directory / "appendonlydir").mkdir()
    manifest = directory / "appendonlydir" / "appendonly.aof.manifest"
    manifest.write_text("nonsense\n")
    (directory / "appendonly.aof").write_text("nonsense")
    with pytest.raises(EmbeddedServerError, match=r"ended with status \d+.*server\.log.*(aof|AOF)"):
        EmbeddedServer(directory).start()


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_server_that_is_too_old_or_broken_is_refused(directory: Path) -> None:
    old = script(directory / "old", "echo 'Redis server v=6.0.16 sha=0:0 malloc=libc bits=64'")
    with pytest.raises(EmbeddedServerError, match=r"6\.0\.16, and 6\.2 is the oldest"):
        find_server(str(old))
    broken = script(directory / "broken", "echo 'no such library' >&2; exit 127")
    with pytest.raises(EmbeddedServerError, match="no such library"):
        find_server(str(broken))
    with pytest.raises(EmbeddedServerError, match="no program"):
        find_server(str(directory / "none"))


def test_server_on_path_comes_first_then_the_wheels_then_fakeredis(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PHONON_EMBEDDED_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(directory))
    assert find_server().path == server_binaries()["redis8"]
    script(directory / "redis-server", "echo 'Redis server v=5.0.14 sha=0:0'")
    assert find_server().path == server_binaries()["redis8"], "too old: the next one serves"
    valkey = script(directory / "valkey-server", "echo 'Valkey server v=8.0.1 sha=0:0'")
    found = find_server()
    assert (found.path, found.label) == (str(valkey), "Valkey 8.0.1")

    valkey.unlink()
    monkeypatch.setattr("phonon_kombu.store.server_binary.WHEELS", ())
    found = find_server()
    assert found.path is None and found.label.startswith("fakeredis")


def test_no_server_at_all_says_what_to_install(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PHONON_EMBEDDED_SERVER", raising=False)
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EmbeddedServerError, match=r"pip install 'phonon_kombu\[embedded\]'"):
        EmbeddedServer(directory / "data").start()

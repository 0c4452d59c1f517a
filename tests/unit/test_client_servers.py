"""What a server may be, and by what name its refusals are raised."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import redis
from redis.exceptions import ReadOnlyError, ResponseError

from phonon_kombu.errors import (
    Exists,
    LayoutMismatch,
    NotClaimed,
    OutOfMemory,
    ScriptKilled,
    ScriptRefused,
    ServerTooOld,
    Unbound,
)
from phonon_kombu.store.checks import LAYOUT, check_server, server_version
from phonon_kombu.store.client import CONNECTION_ERRORS
from phonon_kombu.store.keys import QueueKeys, layout_key
from phonon_kombu.store.refusals import Healable, translate
from tests.lua.links import Links, client_fixture, links_fixture, put_call, server_fixture  # noqa: F401
from tests.servers import RedisServer, free_port
from tests.thoonk.lossy import LossyLine

# What a server may be -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("info", "version"),
    [
        (b"# Server\r\nredis_version:6.2.14\r\nredis_mode:standalone\r\n", (6, 2)),
        (b"redis_version:7.9.240\n", (7, 9)),
        ("redis_version:8.0\n", (8, 0)),
        (b"redis_git_sha1:0\r\nredis_version:10.11.12\r\n", (10, 11)),
        (b"redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.1.1\r\n", (7, 2)),
        (b"# Server\r\n", None),
        (b"", None),
    ],
)
def test_the_version_that_a_server_says(info: bytes | str, version: tuple[int, ...] | None) -> None:
    assert server_version(info) == version


def test_a_server_is_marked_with_the_layout(
    server: RedisServer, client: redis.Redis, links: Links
) -> None:
    link = links(server.port)
    for prefix in ("", "app:"):
        check_server(link, layout_key(prefix))
        check_server(link, layout_key(prefix))
        assert client.get(layout_key(prefix)) == b"%d" % LAYOUT


@pytest.mark.parametrize("found", ["2", "99", "junk", ""])
@pytest.mark.parametrize("prefix", ["", "app:"])
def test_another_layout_is_refused(
    server: RedisServer, client: redis.Redis, links: Links, prefix: str, found: str
) -> None:
    """In a sentence that names the key, both layouts and what can be done; nothing is changed."""
    client.set(layout_key(prefix), found)

    with pytest.raises(LayoutMismatch) as refusal:
        check_server(links(server.port), layout_key(prefix))

    text = str(refusal.value)
    assert f"{prefix}phonon.layout" in text
    assert f"layout {found}," in text and f"reads layout {LAYOUT}" in text
    assert "upgrade" in text and "another database or global_keyprefix" in text
    assert client.get(layout_key(prefix)) == found.encode()


class OldServer(LossyLine):
    """A line to a server that makes it look five years older."""

    def _replies(self, near: Any, far: Any, losing: threading.Event) -> None:
        class Older:
            """Turns the major version in what is sent into a 5: the length stays."""

            @staticmethod
            def sendall(data: bytes) -> None:
                head, mark, tail = data.partition(b"redis_version:")
                near.sendall(head + mark + (b"5" + tail[1:] if mark else tail))

            @staticmethod
            def shutdown(how: int) -> None:
                near.shutdown(how)

        super()._replies(Older, far, losing)  # type: ignore[arg-type]


def test_an_old_server_is_refused(server: RedisServer, client: redis.Redis, links: Links) -> None:
    """In a sentence with its version and the oldest that will do."""
    version = client.info("server")["redis_version"].split(".")
    line = OldServer(server.port)
    try:
        with pytest.raises(ServerTooOld) as refusal:
            check_server(links(line.port), layout_key())
    finally:
        line.close()

    text = str(refusal.value)
    assert f"Redis 5.{version[1]};" in text
    assert "Redis 6.2 or newer" in text and "Valkey" in text


def with_rules(client: redis.Redis, *rules: str) -> dict[str, str]:
    """Credentials of a user with these ACL rules."""
    client.execute_command("ACL", "SETUSER", "limited", "reset", "on", ">pw", *rules)
    return {"username": "limited", "password": "pw"}


def test_a_server_that_hides_its_version_is_taken(
    server: RedisServer, client: redis.Redis, links: Links
) -> None:
    user = with_rules(client, "~*", "+@all", "-info")
    check_server(links(server.port, **user), layout_key())
    assert client.get(layout_key()) == b"%d" % LAYOUT


def test_a_user_who_may_only_read_the_layout_is_taken(
    server: RedisServer, client: redis.Redis, links: Links
) -> None:
    user = with_rules(client, "~*", "+@all", "-set")
    check_server(links(server.port, **user), layout_key())


def test_a_user_without_access_to_the_layout_is_refused(
    server: RedisServer, client: redis.Redis, links: Links
) -> None:
    user = with_rules(client, "~feed.*", "+@all")
    with pytest.raises(ScriptRefused, match="ACL forbids"):
        check_server(links(server.port, **user), layout_key())


def test_a_full_server_is_taken(links: Links) -> None:
    """It can still be drained."""
    with RedisServer("--maxmemory", "1", "--maxmemory-policy", "noeviction") as full:
        link = links(full.port)
        check_server(link, layout_key())
        with pytest.raises(OutOfMemory, match="maxmemory"):
            link.run(*put_call(QueueKeys("q"), b"x"))


# Names of errors ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "kind", "text"),
    [
        ("EXISTS another job has this id", Exists, "another job has this id"),
        ("UNBOUND", Unbound, "UNBOUND"),
        ("NOTCLAIMED: the job is not claimed", NotClaimed, "the job is not claimed"),
        ("OOM command not allowed when used memory > 'maxmemory'.", OutOfMemory, "maxmemory"),
        ("BUSY Redis is busy running a script.", ScriptKilled, "busy"),
        ("UNKILLABLE Sorry the script already executed write commands", ScriptKilled, "UNKILL"),
        ("NOPERM this user has no permissions", ScriptRefused, "NOPERM this user"),
        (
            "Error running script (call to f_1f49): @user_script:7: @user_script: 7: "
            "-READONLY You can't write against a read only replica.",
            Healable,
            "connecting again",
        ),
        ("MASTERDOWN Link with MASTER is down", Healable, "connecting again"),
        ("CLUSTERDOWN The cluster is down", Healable, "connecting again"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", Healable, "connecting again"),
    ],
)
def test_replies_have_names(reply: str, kind: type[Exception], text: str) -> None:
    named = translate(ResponseError(reply))
    assert type(named) is kind
    assert text in str(named)


def test_other_replies_keep_theirs() -> None:
    error = ResponseError("WRONGTYPE Operation against a key")
    assert translate(error) is error
    assert isinstance(translate(ReadOnlyError("You can't write")), Healable)


def test_what_heals_is_a_connection_error() -> None:
    """So that Celery and kombu connect again instead of giving up."""
    assert issubclass(Healable, CONNECTION_ERRORS)


def test_a_replica_heals(server: RedisServer, client: redis.Redis, links: Links) -> None:
    """A write that a replica refuses makes the link connect anew: the next may find a master."""
    link, keys = links(server.port), QueueKeys("q")
    link.run(*put_call(keys, b"x"))
    client.replicaof("127.0.0.1", free_port())
    try:
        with pytest.raises(Healable, match="connecting again"):
            link.run(*put_call(keys, b"y"))
        assert links.released
    finally:
        client.replicaof("NO", "ONE")
    assert link.run(*put_call(keys, b"y")) == b"y"


def test_a_replica_is_no_server_for_us(
    server: RedisServer, client: redis.Redis, links: Links
) -> None:
    """Said when connecting: a consumer on it would break at its first claim, again and again."""
    client.replicaof("127.0.0.1", free_port())
    try:
        with pytest.raises(Healable, match="connecting again"):
            check_server(links(server.port), layout_key())
    finally:
        client.replicaof("NO", "ONE")


def test_a_cluster_that_is_down_heals(links: Links) -> None:
    with RedisServer("--cluster-enabled", "yes") as node:
        link = links(node.port)
        with pytest.raises(Healable, match="connecting again"):
            link.run(*put_call(QueueKeys("q"), b"x"))

"""The lasting connection: calls and their replies, breaks and repeats."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis
from redis.exceptions import AuthenticationError, ConnectionError, ResponseError

from phonon_kombu.errors import Exists
from phonon_kombu.store.client import CONNECTION_ERRORS, LARGE_BYTES, load_scripts
from phonon_kombu.store.keys import QueueKeys
from phonon_kombu.store.patience import limit_silence
from phonon_kombu.store.scripts import load, names
from tests.lua.links import (  # noqa: F401
    Links,
    client_fixture,
    line_fixture,
    links_fixture,
    put_call,
    server_fixture,
)
from tests.servers import RedisServer, free_port, wait_for
from tests.thoonk.lossy import LossyLine

# Calls ----------------------------------------------------------------------------------------


def test_replies_come_in_the_order_of_the_calls(
    server: RedisServer, client: redis.Redis, links: Links
) -> None:
    link, keys = links(server.port), QueueKeys("q")

    replies = link.send(
        [(b"PING",), put_call(keys, b"x"), (b"HLEN", keys.items), (b"ECHO", b""), (b"GET", b"-")]
    )

    assert replies == [b"PONG", b"x", 1, b"", None]
    assert link.send([]) == []


def test_calls_are_made_in_their_order_though_scripts_are_new_to_the_server(
    server: RedisServer, client: redis.Redis, links: Links
) -> None:
    """A batch of messages that need different scripts keeps its order on a fresh server."""
    link, keys = links(server.port), QueueKeys("q")
    client.script_flush()
    append = load("job/append").prepare(keys)

    link.run(append, (b"1", b"item", b""))
    link.send(
        [(append, (b"2", b"item", b"")), put_call(keys, b"3"), (append, (b"4", b"item", b""))]
    )

    assert client.lrange(keys.ids, 0, -1) == [b"4", b"3", b"2", b"1"]


def test_the_first_refusal_is_raised_after_all_was_done(
    server: RedisServer, client: redis.Redis, links: Links
) -> None:
    link, keys = links(server.port), QueueKeys("q")
    calls = [put_call(keys, b"x"), put_call(keys, b"x", b"another"), put_call(keys, b"y")]

    with pytest.raises(Exists):
        link.send(calls)

    assert client.hlen(keys.items) == 2
    assert link.command(b"PING") == b"PONG"
    first, second, third = link.send(calls, raise_first=False)
    assert (first, third) == (b"x", b"y")
    assert isinstance(second, Exists)


def test_scripts_can_be_loaded_ahead(
    server: RedisServer, client: redis.Redis, links: Links
) -> None:
    """And have the name that the server gives them."""
    client.script_flush()
    scripts = [load(name) for name in names()]

    load_scripts(links(server.port), scripts)

    assert client.script_exists(*(script.sha for script in scripts)) == [True] * len(scripts)


def test_a_refusal_of_a_plain_command_is_passed_on(
    server: RedisServer, client: redis.Redis, links: Links
) -> None:
    link = links(server.port)
    link.command(b"SET", b"k", b"text")
    with pytest.raises(ResponseError, match="not an integer"):
        link.command(b"INCR", b"k")
    with pytest.raises(ResponseError, match="wrong kind of value"):
        link.command(b"LPUSH", b"k", b"v")


# Breaks ---------------------------------------------------------------------------------------


def test_a_link_connects_again_after_its_connection_was_killed(
    server: RedisServer, client: redis.Redis, links: Links
) -> None:
    link = links(server.port)
    for _ in range(3):
        first = link.command(b"CLIENT", b"ID")
        assert client.client_kill_filter(_id=first) == 1
        assert link.command(b"CLIENT", b"ID") > first


def test_without_repeat_a_break_is_raised_and_the_next_call_works(
    server: RedisServer, client: redis.Redis, links: Links
) -> None:
    link = links(server.port)
    client.client_kill_filter(_id=link.command(b"CLIENT", b"ID"))

    with pytest.raises(CONNECTION_ERRORS):
        link.command(b"PING", repeat=False)

    assert link.command(b"PING", repeat=False) == b"PONG"


def test_with_repeat_a_call_whose_reply_was_lost_is_made_once_more(
    client: redis.Redis, links: Links, line: LossyLine
) -> None:
    link = links(line.port)
    link.command(b"PING")
    line.lose(b"INCR")

    assert link.command(b"INCR", b"n") == 2

    assert (line.lost, client.get("n")) == (1, b"2")


@pytest.mark.parametrize("heard", ["by another's call", "by a posting", "by itself", "at the end"])
def test_a_posted_batch_is_told_of_its_break_and_nobody_else_is(
    client: redis.Redis, links: Links, line: LossyLine, heard: str
) -> None:
    link = links(line.port)
    link.command(b"PING")
    line.lose(b"mine")
    told: list[list[Any]] = []
    link.post([(b"ECHO", b"mine"), (b"ECHO", b"too")], told.append)
    others: list[list[Any]] = []

    if heard == "by another's call":
        assert link.command(b"ECHO", b"other", repeat=False) == b"other"
    elif heard == "by a posting":
        link.post([(b"ECHO", b"other")], others.append)
        link.hear()
        assert others == [[b"other"]]
    elif heard == "by itself":
        link.hear()
    else:
        link.close()

    assert len(told) == 1
    assert [isinstance(reply, CONNECTION_ERRORS) for reply in told[0]] == [True, True]


def test_without_repeat_a_call_is_made_once(
    client: redis.Redis, links: Links, line: LossyLine
) -> None:
    link = links(line.port)
    link.command(b"PING")
    line.lose(b"INCR")

    with pytest.raises(CONNECTION_ERRORS):
        link.command(b"INCR", b"n", repeat=False)

    wait_for(lambda: client.get("n") == b"1")
    assert link.command(b"INCR", b"n", repeat=False) == 2


def test_a_second_break_is_raised(client: redis.Redis, links: Links, line: LossyLine) -> None:
    link = links(line.port)
    line.lose(b"INCR", times=2)

    with pytest.raises(CONNECTION_ERRORS):
        link.command(b"INCR", b"n")

    wait_for(lambda: client.get("n") == b"2")
    assert link.command(b"INCR", b"n") == 3


def test_a_put_whose_reply_was_lost_is_one_job(
    client: redis.Redis, links: Links, line: LossyLine
) -> None:
    link, keys = links(line.port), QueueKeys("q")
    link.run(*put_call(keys, b"first"))
    line.lose(b"EVALSHA")

    assert link.run(*put_call(keys, b"second")) == b"second"

    assert line.lost == 1
    assert client.lrange(keys.ids, 0, -1) == [b"second", b"first"]


def test_an_interrupt_between_command_and_reply_does_not_shift_replies(
    server: RedisServer, client: redis.Redis, links: Links
) -> None:
    link = links(server.port)
    link.command(b"PING")
    connection = links.acquired[-1]
    read = connection.read_response

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        connection.read_response = read
        raise KeyboardInterrupt

    connection.read_response = interrupted
    with pytest.raises(KeyboardInterrupt):
        link.command(b"ECHO", b"for nobody")

    assert link.command(b"ECHO", b"mine") == b"mine"


def test_an_unreachable_server_is_a_connection_error(links: Links) -> None:
    link = links(free_port())
    with pytest.raises(ConnectionError):
        link.command(b"PING")


def test_a_silent_server_is_a_connection_error(links: Links) -> None:
    """The kernel gives up reading after the time that was set."""
    with RedisServer() as silent:
        link = links(silent.port)
        link.command(b"PING")
        limit_silence(links.acquired[-1], 1)
        silent.pause()
        started = time.monotonic()
        try:
            with pytest.raises(CONNECTION_ERRORS):
                link.command(b"PING", repeat=False)
        finally:
            silent.resume()
        assert 0.5 < time.monotonic() - started < 10
        assert link.command(b"PING") == b"PONG"


def test_a_wrong_password_is_named(links: Links) -> None:
    with RedisServer("--requirepass", "right") as guarded:
        with pytest.raises(AuthenticationError):
            links(guarded.port, password="wrong").command(b"PING")
        assert links(guarded.port, password="right").command(b"PING") == b"PONG"


def test_a_connection_is_given_back_once(
    server: RedisServer, client: redis.Redis, links: Links
) -> None:
    link = links(server.port)
    ident = link.command(b"CLIENT", b"ID")
    link.close()
    link.close()

    assert links.released == links.acquired
    wait_for(lambda: ident not in {int(entry["id"]) for entry in client.client_list()})


# Large values -----------------------------------------------------------------------------------


def test_the_server_keeps_no_room_for_a_large_value(
    server: RedisServer, client: redis.Redis, links: Links
) -> None:
    """It keeps a buffer as large as the largest argument for as long as the connection lives."""
    link, keys = links(server.port), QueueKeys("q")
    client.script_flush()
    id = link.command(b"CLIENT", b"ID")
    before = client.info("stats")["total_net_input_bytes"]

    item = b"x" * LARGE_BYTES
    assert link.run(load("job/append").prepare(keys), (b"1", item, b"")) == b"1"

    sent = client.info("stats")["total_net_input_bytes"] - before
    assert sent < 1.5 * LARGE_BYTES, "sent twice, as the server did not know the script"
    wait_for(
        lambda: id not in [int(one["id"]) for one in client.client_list()],
        message="that connection is still open",
    )
    assert client.hget(keys.items, "1") == item
    assert link.command(b"PING") == b"PONG"


def test_many_small_values_leave_the_connection_alone(
    server: RedisServer, client: redis.Redis, links: Links
) -> None:
    link = links(server.port)
    id = link.command(b"CLIENT", b"ID")
    half = b"x" * (LARGE_BYTES // 2)
    link.send([(b"SET", b"k", half)] * 3)
    assert link.command(b"CLIENT", b"ID") == id

"""One lasting connection, many threads; and what a forked child makes of its parent's."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import redis

from phonon_kombu.store.client import CONNECTION_ERRORS, fork_epoch
from phonon_kombu.store.keys import QueueKeys
from tests.lua.links import Links, client_fixture, links_fixture, put_call, server_fixture  # noqa: F401
from tests.servers import RedisServer, wait_for

# Threads --------------------------------------------------------------------------------------


def test_threads_share_a_link(server: RedisServer, client: redis.Redis, links: Links) -> None:
    """Each gets the replies to its own commands, breaks or not."""
    link, keys = links(server.port), QueueKeys("q")
    wrong: list[Any] = []

    def work(name: int) -> None:
        for n in range(150):
            text = b"%d.%d" % (name, n)
            replies = None
            while replies is None:
                # A call is repeated once; two breaks may hit the same one.
                with contextlib.suppress(*CONNECTION_ERRORS):
                    replies = link.send(((b"ECHO", text), put_call(keys, text)), repeat=True)
            if replies != [text, text]:
                wrong.append((text, replies))

    threads = [threading.Thread(target=work, args=(name,)) for name in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        ids = {int(entry["id"]) for entry in client.client_list()} - {client.client_id()}
        for ident in ids:
            client.client_kill_filter(_id=ident)
        time.sleep(0.01)  # no synchronisation: only breaks spread over the run
    for thread in threads:
        thread.join(60)

    assert not wrong
    assert client.hlen(keys.items) == 6 * 150
    assert client.llen(keys.ids) == 6 * 150


# Signals --------------------------------------------------------------------------------------


def test_the_handler_of_a_signal_may_use_the_link(
    server: RedisServer, client: redis.Redis, links: Links
) -> None:
    """While the main thread waits for the reply to its own command."""
    link, replies = links(server.port), list[Any]()
    posted = list[Any]()

    def handle(number: int, frame: Any) -> None:
        replies.append(link.command(b"ECHO", b"the handler's"))
        link.post(((b"ECHO", b"posted"),), posted.extend)
        replies.extend(posted)
        client.rpush("list", "the main thread's")

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        waiting = threading.Thread(target=signal_when_blocked, args=(client,))
        waiting.start()
        assert link.command(b"BLPOP", b"list", b"20") == [b"list", b"the main thread's"]
        waiting.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert replies == [b"the handler's", b"posted"]
    assert link.command(b"PING") == b"PONG"


def signal_when_blocked(client: redis.Redis) -> None:
    """Send SIGUSR1 to the main thread as soon as the server has a blocked client."""
    wait_for(lambda: client.info("clients")["blocked_clients"], 10, message="nobody waits")
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)


# Forks ----------------------------------------------------------------------------------------


def in_child(work: Callable[[], bool]) -> bool:
    """Whether `work` came back true in a forked child within ten seconds."""
    pid = os.fork()
    if pid == 0:  # pragma: no cover
        status = 1
        try:
            signal.alarm(10)
            status = 0 if work() else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    return status == 0


def test_a_child_has_a_connection_of_its_own(
    server: RedisServer, client: redis.Redis, links: Links
) -> None:
    """And the parent's goes on as if nothing had been."""
    link = links(server.port)
    ident, epoch = link.command(b"CLIENT", b"ID"), fork_epoch()

    assert in_child(
        lambda: (
            link.command(b"CLIENT", b"ID") != ident
            and link.command(b"ECHO", b"child") == b"child"
            and fork_epoch() == epoch + 1
            and not links.released
        )
    )

    assert link.command(b"CLIENT", b"ID") == ident
    assert fork_epoch() == epoch


def test_a_child_that_only_closes_leaves_the_parents_connection_alone(
    server: RedisServer, client: redis.Redis, links: Links
) -> None:
    link = links(server.port)
    ident = link.command(b"CLIENT", b"ID")

    def close() -> bool:
        link.close()
        return not links.released

    assert in_child(close)
    assert link.command(b"CLIENT", b"ID") == ident


def test_a_child_can_close_its_copy_of_the_socket_at_once(
    server: RedisServer, client: redis.Redis, links: Links
) -> None:
    link = links(server.port)
    ident = link.command(b"CLIENT", b"ID")

    def forget() -> bool:
        link.after_fork()
        return links.acquired[0]._sock is None and link.command(b"CLIENT", b"ID") != ident

    assert in_child(forget)
    assert link.command(b"CLIENT", b"ID") == ident


def test_a_fork_while_another_thread_talks_does_not_block_the_child(
    server: RedisServer, client: redis.Redis, links: Links
) -> None:
    """The lock is taken for good in the child: the thread that holds it is not there."""
    link = links(server.port)
    link.command(b"PING")
    holds, done = threading.Event(), threading.Event()

    def hold() -> None:
        with link.lock:
            holds.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    holds.wait(10)
    try:
        assert in_child(lambda: link.command(b"ECHO", b"child") == b"child")
    finally:
        done.set()
        thread.join()
    assert link.command(b"PING") == b"PONG"

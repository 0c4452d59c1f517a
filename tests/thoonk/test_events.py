"""Notices: handlers and iterators, of all kinds; lines that break; who is told of what."""

from __future__ import annotations

import logging
import os
import threading
import time
from queue import Empty
from typing import Any

import pytest
import redis

from phonon_kombu.errors import ConfigurationError, JobError, ScriptRefused
from phonon_kombu.thoonk import Thoonk, subscription
from phonon_kombu.thoonk.notices import ARGUMENTS, KINDS
from tests.servers import RedisServer, start_server, wait_for

from .lossy import LossyLine


class Told(list[tuple[Any, ...]]):
    """Handlers that note what they are given."""

    def __call__(self, name: str) -> Any:
        return lambda *given: self.append((name, *given))


def everything(session: Thoonk) -> None:
    """Do what there are notices for, but for jobs."""
    feed = session.feed("f")
    feed.publish("x", id="a")
    feed.publish("y", id="a")
    feed.retract("a")
    sorted_feed = session.sorted_feed("s")
    sorted_feed.append("x")
    sorted_feed.move_first("1")
    session.set_config("f", {"max_length": 5})
    session.delete_feed("f")


EXPECTED = [
    ("create", "f"), ("publish", "f", "x", "a"), ("edit", "f", "y", "a"), ("retract", "f", "a"),
    ("create", "s"), ("publish", "s", "x", "1"), ("position", "s", "1", ":end"),
    ("position", "s", "1", "begin:"), ("config", "f"), ("delete", "f"),
]  # fmt: skip


@pytest.mark.parametrize("ending", ["", "_notice"])
def test_handlers(thoonk: Thoonk, other: Thoonk, ending: str) -> None:
    """Both spellings; each is called with what its kind has."""
    told = Told()
    for kind in ARGUMENTS:
        thoonk.register_handler(kind + ending, told(kind))
    everything(other)
    wait_for(lambda: len(told) >= len(EXPECTED))
    assert told == EXPECTED


def test_a_result_is_told(thoonk: Thoonk, other: Thoonk) -> None:
    told = Told()
    thoonk.register_handler("finish", told("finish"))
    job = other.job("jobs")
    job.put("item", id="j")
    job.get(timeout=5)
    job.finish("j", "contents", result=True)
    wait_for(lambda: told)
    assert told == [("finish", "jobs", "j", "contents")]


def test_what_becomes_of_jobs_is_told(thoonk: Thoonk, other: Thoonk) -> None:
    """Of those that Celery puts too; a refusal is no news."""
    told = Told()
    for kind in ("stall_notice", "retry", "cancel"):
        thoonk.register_handler(kind, told(kind))
    job = other.job("jobs")
    job.put("item", id="j")
    job.stall("j", "because")
    job.stall("j", "it is stalled already")
    job.retry("j")
    job.get(timeout=5)
    job.cancel("j")
    for refused in (job.retry, job.cancel, lambda id: job.stall("nobody")):
        with pytest.raises(JobError):
            refused("j")
    job.stall("j")
    wait_for(lambda: len(told) == 4)
    assert told == [
        ("stall_notice", "jobs", "j", "because"), ("retry", "jobs", "j"), ("cancel", "jobs", "j"),
        ("stall_notice", "jobs", "j", ""),
    ]  # fmt: skip


def test_handlers_come_and_go(thoonk: Thoonk, other: Thoonk) -> None:
    """Several for one kind; only for one feed; not after they are removed."""
    all_feeds, one_feed, removed = Told(), Told(), Told()
    handler = removed("removed")
    thoonk.register_handler("publish", handler)
    thoonk.register_handler("publish", one_feed("one"), feed="f")
    thoonk.register_handler("retract", one_feed("retract"), feed="f")
    other.feed("f").publish("x", id="a")
    wait_for(lambda: removed and one_feed)
    thoonk.register_handler("publish_notice", all_feeds("all"))
    thoonk.remove_handler("publish", handler)
    other.feed("f").publish("x", id="b")
    other.feed("g").publish("x", id="c")
    other.feed("g").retract("c")
    wait_for(lambda: len(all_feeds) == 2)
    assert [entry[3] for entry in all_feeds] == ["b", "c"]
    assert one_feed == [("one", "f", "x", "a"), ("one", "f", "x", "b")]
    assert removed == [("removed", "f", "x", "a")]
    for name, stranger in (("publish", handler), ("edit", handler)):
        with pytest.raises(ConfigurationError):
            thoonk.remove_handler(name, stranger)


@pytest.mark.parametrize("wrong", ["published", "mark", "", None])
def test_kinds_that_there_are_not(thoonk: Thoonk, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="position"):
        thoonk.register_handler(wrong, print)
    with pytest.raises(ConfigurationError, match="handler"):
        thoonk.register_handler("publish", "print")  # type: ignore[arg-type]


def test_a_handler_that_fails_is_logged_and_the_others_go_on(
    thoonk: Thoonk, other: Thoonk, caplog: pytest.LogCaptureFixture
) -> None:
    told = Told()

    def fail(*given: Any) -> None:
        raise RuntimeError("out of order")

    thoonk.register_handler("publish", fail)
    thoonk.register_handler("publish", told("publish"))
    with caplog.at_level(logging.ERROR, "phonon_kombu.thoonk"):
        for n in range(2):
            other.feed("f").publish("x", id=str(n))
        wait_for(lambda: len(told) == 2)
    assert caplog.text.count("RuntimeError: out of order") == 2


def test_a_handler_may_use_the_session_and_register_others(thoonk: Thoonk, other: Thoonk) -> None:
    told = Told()

    def on_publish(feed: str, item: str, id: str) -> None:
        thoonk.feed("answers").publish(f"re: {item}", id=id)
        thoonk.register_handler("retract", told("retract"))

    thoonk.register_handler("publish", on_publish, feed="questions")
    other.feed("questions").publish("who?", id="q")
    wait_for(lambda: thoonk.feed("answers").get_all() == {"q": "re: who?"})
    wait_for(lambda: other.feed("questions").retract(other.feed("questions").publish("x")) or told)


def test_what_is_registered_is_heard_from_then_on(thoonk: Thoonk, other: Thoonk) -> None:
    """No pause is needed between registering and the first publish, each time anew."""
    feed = other.feed("f")
    for n in range(20):
        told = Told()
        thoonk.register_handler("publish" if n % 2 else "retract", told(str(n)), feed="f")
        feed.retract(feed.publish("x"))
        wait_for(lambda told=told: told)


# Iterators ------------------------------------------------------------------------------------


def test_listen(thoonk: Thoonk, other: Thoonk) -> None:
    with thoonk.listen() as notices:
        everything(other)
        heard = []
        for notice in notices:
            heard.append((notice.kind, *(getattr(notice, a) for a in ARGUMENTS[notice.kind])))
            if notice.kind == "delete":
                assert notice.instance == other.instance
                break
    assert heard == EXPECTED


def test_listen_to_some(thoonk: Thoonk, other: Thoonk) -> None:
    with thoonk.listen("position", "edit_notice", feed="s") as notices:
        everything(other)
        assert [notices.get(5).position for _ in range(2)] == [":end", "begin:"]
        started = time.monotonic()
        with pytest.raises(Empty):
            notices.get(timeout=0.3)
        assert 0.3 <= time.monotonic() - started < 3
        with pytest.raises(Empty):
            notices.get(timeout=0)
    with pytest.raises(Empty, match="closed"):
        notices.get()
    assert list(notices) == []


def test_closing_ends_the_wait_of_another_thread(thoonk: Thoonk) -> None:
    notices = thoonk.listen("publish")
    ended = threading.Event()

    def read() -> None:
        assert list(notices) == []
        ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    time.sleep(0.1)  # it is to be waiting
    notices.close()
    assert ended.wait(10)
    reader.join()


@pytest.mark.parametrize("prefix", ["", "a*[b]?:", "app:"])
@pytest.mark.parametrize("hash_tags", [True, False])
@pytest.mark.parametrize("feed", ["f", "*", "}x", "%", "%41", "{f}", "a:b", "ü", "\udcff"])
def test_names_of_all_kinds(url: str, prefix: str, hash_tags: bool, feed: str) -> None:
    """A feed is told from others whatever it is called, and so are those of another prefix."""
    with (
        Thoonk(url, prefix=prefix, hash_tags=hash_tags) as session,
        Thoonk(url, prefix=prefix + "x", hash_tags=hash_tags) as stranger,
        session.listen("publish", "create") as all_feeds,
        session.listen("publish", feed=feed) as one_feed,
    ):
        for one in (stranger, session):
            for name in (feed, "another"):
                one.feed(name).publish("x")
        heard = [all_feeds.get(5) for _ in range(4)]
        assert [(n.kind, n.feed) for n in heard] == [
            ("create", feed), ("publish", feed), ("create", "another"), ("publish", "another"),
        ]  # fmt: skip
        assert one_feed.get(5).feed == feed
        for quiet in (all_feeds, one_feed):
            with pytest.raises(Empty):
                quiet.get(timeout=0.05)
        assert session.get_feeds() == {feed, "another"}


def test_an_item_that_cannot_be_read_is_told_as_it_is(
    thoonk: Thoonk, redis_client: redis.Redis
) -> None:
    thoonk.feed("f", serializer="json")
    with thoonk.listen("publish") as notices:
        redis_client.publish("feed.publish:{f}", "a\0no json")
        redis_client.publish("feed.publish:{f}", "without an item")
        redis_client.publish("feed.publish:{f}", 'b\0"json"')
        assert [(n.id, n.item) for n in (notices.get(5), notices.get(5), notices.get(5))] == [
            ("a", b"no json"), ("without an item", b""), ("b", "json"),
        ]  # fmt: skip


# Lines that break -----------------------------------------------------------------------------


def test_a_lost_connection_is_a_gap(far: Thoonk, thoonk: Thoonk, line: LossyLine) -> None:
    """It connects again, says so, and hears what comes from then on; handlers and iterators."""
    told = Told()
    far.register_handler("gap", told("gap"))
    far.register_handler("publish", told("publish"))
    feed = thoonk.feed("f")
    with far.listen("publish") as notices:
        for n in range(3):
            line.cut()
            wait_for(lambda n=n: len([t for t in told if t[0] == "gap"]) == n + 1)
            gap = notices.get(10)
            assert gap.kind == "gap" and gap.seconds is not None and 0 <= gap.seconds < 10
            feed.publish("x", id=str(n))
            assert notices.get(10).id == str(n)
            wait_for(lambda n=n: told[-1] == ("publish", "f", "x", str(n)))


def test_a_server_that_is_away_for_a_while(url: str) -> None:
    with start_server() as server:
        session = Thoonk("127.0.0.1", server.port)
        told = Told()
        session.register_handler("gap", told("gap"))
        session.register_handler("publish", told("publish"))
        server.kill()
        time.sleep(0.7)  # several tries fail
        server.start()
        wait_for(lambda: told, 20)
        assert told[0][0] == "gap" and told[0][1] > 0.5
        session.feed("f").publish("x", id="a")
        wait_for(lambda: ("publish", "f", "x", "a") in told)
        session.close()


def test_a_server_that_falls_silent(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A PING that is not answered is a lost connection; one that is answered is none."""
    monkeypatch.setattr(subscription, "PING_SECONDS", 0.2)
    monkeypatch.setattr(subscription, "PATIENCE_SECONDS", 1.0)
    with (
        start_server() as server,
        Thoonk("127.0.0.1", server.port) as session,
        session.listen("publish") as notices,
    ):
        with pytest.raises(Empty):
            notices.get(timeout=1.5)
        server.pause()
        try:
            started = time.monotonic()
            with pytest.raises(Empty):
                notices.get(timeout=2)
            assert time.monotonic() - started < 10
        finally:
            server.resume()
        assert notices.get(timeout=20).kind == "gap"
        session.feed("f").publish("x")
        assert notices.get(timeout=5).kind == "publish"


def test_no_server_and_no_permission(url: str) -> None:
    with start_server() as server:
        server.client().execute_command(
            "ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "resetchannels"
        )
        session = Thoonk(f"phonon://app:pw@127.0.0.1:{server.port}")
        if not server.is_fake:  # it lets everybody listen
            with pytest.raises(ScriptRefused, match="ACL"):
                session.listen("publish")
            with pytest.raises(ScriptRefused, match="ACL"):
                session.register_handler("publish", print)
        session.close()
    with pytest.raises(redis.ConnectionError):
        Thoonk("127.0.0.1", server.port, listen=True)


def test_closing_a_session_ends_its_thread_and_connections(far: Thoonk, line: LossyLine) -> None:
    before = threading.enumerate()  # other tests' sessions may have one too
    far.register_handler("publish", print)
    new = [t for t in threading.enumerate() if t not in before]
    (listener,) = [t for t in new if t.name == "thoonk-listener"]
    far.close()
    wait_for(lambda: line.connections == 0)
    wait_for(lambda: not listener.is_alive())


def test_a_forked_child_listens_for_itself(
    thoonk: Thoonk, other: Thoonk, redis_server: RedisServer
) -> None:
    told = Told()
    thoonk.register_handler("publish", told("parent"))
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            thoonk.register_handler("publish", lambda *given: os.write(write, b"heard"))
            os.write(write, b"ready")
            time.sleep(20)
        finally:
            os._exit(1)
    try:
        assert os.read(read, 5) == b"ready"
        other.feed("f").publish("x", id="a")
        assert os.read(read, 5) == b"heard"
        wait_for(lambda: told == [("parent", "f", "x", "a")])
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(read)
        os.close(write)


def test_kinds_are_those_of_the_handlers() -> None:
    assert set(ARGUMENTS) == {*KINDS, "gap"}

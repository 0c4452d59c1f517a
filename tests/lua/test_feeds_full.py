"""Feeds on a server that may store no byte more: refused with nothing written, or carried out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from phonon_kombu.errors import OutOfMemory
from phonon_kombu.thoonk import Thoonk
from tests.servers import RedisServer
from tests.thoonk.test_sorted_feed import links

pytestmark = pytest.mark.needs("maxmemory")


@pytest.fixture
def full(own_server: RedisServer) -> Iterator[Thoonk]:
    """Feeds with items in them, on a full server."""
    with Thoonk("127.0.0.1", own_server.port) as session:
        feed = session.feed("f", {"max_length": 3})
        for n in range(3):
            feed.publish("x", id=str(n))
        for name, interop in (("s", False), ("l", True)):
            sorted_feed = session.sorted_feed(name, interop=interop)
            for n in range(4):
                sorted_feed.append("x", id=str(n))
        client = own_server.client()
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", "1")
        yield session


def picture(session: Thoonk) -> dict[bytes, Any]:
    """All keys, as they are."""
    keys = sorted(session.link.command(b"KEYS", b"feed*"))
    return {key: session.link.command(b"DUMP", key) for key in keys}


REFUSED: dict[str, Callable[[Thoonk], Any]] = {
    "publish": lambda s: s.feed("f").publish("y", id="new"),
    "edit": lambda s: s.feed("f").publish("y", id="0"),
    "append": lambda s: s.sorted_feed("s").append("y"),
    "insert": lambda s: s.sorted_feed("s").publish_after("1", "y", id="new"),
    "insert into a list": lambda s: s.sorted_feed("l").publish_after("1", "y", id="new"),
    "edit in place": lambda s: s.sorted_feed("s").edit("1", "y"),
    "move": lambda s: s.sorted_feed("s").move_first("3"),
    "move in a list": lambda s: s.sorted_feed("l").move_first("3"),
    "configure": lambda s: s.set_config("f", {"title": "y"}),
    "create": lambda s: s.create_feed("new"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_takes_memory_is_refused_and_nothing_is_written(full: Thoonk, name: str) -> None:
    before = picture(full)

    with pytest.raises(OutOfMemory):
        REFUSED[name](full)

    assert picture(full) == before


def test_what_frees_memory_goes_on(full: Thoonk, own_server: RedisServer) -> None:
    full.feed("f").retract("1")
    full.sorted_feed("s").retract("1")
    full.sorted_feed("l").retract("1")
    assert links(own_server.client(), atomic=False) == ["0", "2", "3"]
    assert full.sorted_feed("l").get_ids() == ["0", "2", "3"]
    assert full.feed("f").get_ids() == ["0", "2"]
    full.delete_feed("f")
    assert not full.feed_exists("f")

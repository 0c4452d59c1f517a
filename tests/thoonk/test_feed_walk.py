"""Random walks through feeds and sorted feeds: any interleaving equals a list in Python."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from phonon_kombu.errors import Exists, ItemNotFound
from phonon_kombu.thoonk import Feed, Live, SortedFeed, Thoonk
from tests.lua.test_walk import PROFILE, PROFILES

from .test_sorted_feed import links

IDS = st.sampled_from("abcdefgh")
ITEMS = st.sampled_from(("x", "y", "match"))
WHO = st.integers(0, 1)


def matches(item: str) -> bool:
    """What the live query wants."""
    return item == "match"


class Replica:
    """What the reader of a live query makes of its changes."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.items: dict[str, str] = {}

    def follow(self, expected: dict[str, str]) -> None:
        """Read changes until it is as expected; they never say what cannot be."""
        while self.items != expected:
            change = self.live.get(timeout=10)
            if change.kind == "retract":
                del self.items[change.id]
            elif change.kind == "position":
                assert change.id in self.items
            else:
                assert (change.kind == "edit") == (change.id in self.items)
                self.items[change.id] = change.item


class Walk(RuleBasedStateMachine):
    """A feed that two sessions use, and its model: a dictionary of items, a list of ids."""

    def __init__(self, sessions: tuple[Thoonk, Thoonk], client: redis.Redis, kind: str) -> None:
        super().__init__()
        client.flushdb()
        for session in sessions:
            session.forget("f")
        self.client = client
        open_feed = {
            "feed": lambda s: s.feed("f"),
            "links": lambda s: s.sorted_feed("f", interop=False),
            "list": lambda s: s.sorted_feed("f", interop=True),
        }[kind]
        self.feeds: list[Any] = [open_feed(session) for session in sessions]
        self.kind = kind
        self.ids: list[str] = []
        self.items: dict[str, str] = {}
        self.replica = Replica(self.feeds[0].live(matches))

    def teardown(self) -> None:
        self.replica.live.close()

    def compare(self) -> None:
        reader = self.feeds[0]
        assert reader.get_ids() == self.ids
        assert reader.get_all() == {id: self.items[id] for id in self.ids}
        if self.kind == "links":
            assert links(self.client, "f") == self.ids

    @rule()
    def follow(self) -> None:
        self.replica.follow({id: item for id, item in self.items.items() if matches(item)})

    @rule(who=WHO, id=IDS)
    def retract(self, who: int, id: str) -> None:
        if id in self.ids:
            self.feeds[who].retract(id)
            self.ids.remove(id)
            del self.items[id]
        else:
            with pytest.raises(ItemNotFound):
                self.feeds[who].retract(id)
        self.compare()


class FeedWalk(Walk):
    """Publishes and edits."""

    feeds: list[Feed]
    max_length = 0

    @rule(who=WHO, id=IDS, item=ITEMS)
    def publish(self, who: int, id: str, item: str) -> None:
        self.feeds[who].publish(item, id=id)
        new = id not in self.ids
        if not new:
            self.ids.remove(id)
        self.ids.append(id)
        self.items[id] = item
        self._trim()
        self.compare()

    @rule(who=WHO, length=st.integers(0, 5))
    def limit(self, who: int, length: int) -> None:
        self.feeds[who].session.set_config("f", {"max_length": length})
        self.max_length = length
        self._trim()
        self.compare()

    def _trim(self) -> None:
        while self.max_length and len(self.ids) > self.max_length:
            del self.items[self.ids.pop(0)]


class SortedWalk(Walk):
    """Inserts, edits and moves."""

    feeds: list[SortedFeed]

    def _place(self, where: str, ref: str) -> int:
        if where in ("begin", "end"):
            return 0 if where == "begin" else len(self.ids)
        return self.ids.index(ref) + (where == "after")

    @rule(who=WHO, id=IDS, item=ITEMS, ref=IDS,
          where=st.sampled_from(("begin", "end", "before", "after")))  # fmt: skip
    def insert(self, who: int, id: str, item: str, ref: str, where: str) -> None:
        feed = self.feeds[who]
        act = {
            "begin": lambda: feed.prepend(item, id=id),
            "end": lambda: feed.append(item, id=id),
            "before": lambda: feed.publish_before(ref, item, id=id),
            "after": lambda: feed.publish_after(ref, item, id=id),
        }[where]
        if where in ("before", "after") and ref not in self.ids:
            with pytest.raises(ItemNotFound):
                act()
        elif id in self.ids and self.items[id] != item:
            with pytest.raises(Exists):
                act()
        else:
            assert act() == id
            if id not in self.ids:
                self.ids.insert(self._place(where, ref), id)
                self.items[id] = item
        self.compare()

    @rule(who=WHO, id=IDS, ref=IDS, where=st.sampled_from(("begin", "end", "before", "after")))
    def move(self, who: int, id: str, ref: str, where: str) -> None:
        position = {"begin": "begin:", "end": ":end", "before": f":{ref}", "after": f"{ref}:"}
        if id not in self.ids or (where in ("before", "after") and ref not in self.ids):
            with pytest.raises(ItemNotFound):
                self.feeds[who].move(position[where], id)
        else:
            self.feeds[who].move(position[where], id)
            if id != ref or where in ("begin", "end"):
                self.ids.remove(id)
                self.ids.insert(self._place(where, ref), id)
        self.compare()

    @precondition(lambda self: self.ids)
    @rule(who=WHO, n=st.integers(0, 7), item=ITEMS)
    def edit(self, who: int, n: int, item: str) -> None:
        id = self.ids[n % len(self.ids)]
        self.feeds[who].edit(id, item)
        self.items[id] = item
        self.compare()


@pytest.mark.timeout(0 if PROFILE == "long" else 240)
@pytest.mark.parametrize("kind", ["feed", "links", "list"])
def test_random_walks(thoonk: Thoonk, other: Thoonk, redis_client: redis.Redis, kind: str) -> None:
    """Whatever happens in whatever order, feed and live query do what the model does."""
    walk = FeedWalk if kind == "feed" else SortedWalk
    run_state_machine_as_test(
        lambda: walk((thoonk, other), redis_client, kind), settings=PROFILES[PROFILE]
    )

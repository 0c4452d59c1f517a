"""The scripts of feeds, each on all its paths: with a fence around them, or on a cluster."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest

from phonon_kombu.errors import ConfigurationError, Exists, FeedExists, FeedNotFound, ItemNotFound
from phonon_kombu.store.keys import FeedKeys, channel, wire_name
from tests.lua.machine import Machine


def run_feed_scripts(m: Machine, fenced: bool = False) -> set[str]:
    """Run them all on one feed, compare what they reply, and return their names."""
    m.keys = FeedKeys(m.queue)  # type: ignore[assignment]
    ran = set()

    def run(name: str, *args: Any, **given: bytes) -> Any:
        ran.add(name)
        return m.run(name, *args, **given)

    def told(*kinds: str) -> list[bytes]:
        return [channel(kind, wire_name(m.queue)) for kind in kinds]

    with m.fence() if fenced else nullcontext():
        _catalog(run, told)
        _feed(m, run, told)
        for variant in ("", "list_"):
            _sorted(run, told, variant)
    return ran


def _catalog(run: Any, told: Any) -> None:
    (created,), (deleted,), (configured,) = told("create"), told("delete"), told("config")
    for refused in ("feed/delete", "feed/configure"):
        with pytest.raises(FeedNotFound):
            run(refused, deleted, "m", *(["a", "b"] if refused == "feed/configure" else []))
    assert run("feed/create", created, "m", "1", "feed", "max_length", "3") == [1, "feed", "", ""]
    assert run("feed/create", created, "m", "", "queue", "order", "x") == [0, "feed", "", ""]
    with pytest.raises(FeedExists):
        run("feed/create", created, "m", "1", "feed")
    assert run("feed/configure", configured, "m", "type", "feed", "title", "News") == 1
    for fixed in ("type", "order", "serializer"):
        with pytest.raises(ConfigurationError):
            run("feed/configure", configured, "m", "title", "x", fixed, "another")
    assert run("feed/delete", deleted, "m") == 1
    with pytest.raises(FeedNotFound):
        run("feed/publish", "id", "item", *told("publish", "edit", "retract"), "feed")
    run("feed/create", created, "m", "", "feed", "max_length", "2")


def _feed(m: Machine, run: Any, told: Any) -> None:
    notices = (*told("publish", "edit", "retract"), "feed")
    assert [run("feed/publish", f"i{n}", "item", *notices) for n in range(4)] == [[1, 0]] * 4
    assert run("feed/publish", "i2", "item", *notices) == [0, 0]
    assert m.client.zrange(m.keys.ids, 0, -1) == [b"i3", b"i2"]
    m.client.hset(m.keys.config, "max_length", 1)
    assert run("feed/publish", "i3", "item", *notices) == [0, 1]
    assert run("feed/trim", *told("retract")) == 0
    assert run("feed/trim", *told("retract")) == 0
    assert run("feed/scan", "0", *told("mark"), "m") == ["0", "i3", "item"]
    assert run("feed/retract", "i3", *told("retract"), "feed") == "i3"
    with pytest.raises(ItemNotFound):
        run("feed/retract", "i3", *told("retract"), "feed")
    assert run("feed/delete", *told("delete"), "m") == 2


def _sorted(run: Any, told: Any, variant: str) -> None:
    insert = f"sorted_feed/{variant}insert"
    at_end = ("end", "", *told("publish", "position"), ":end", "sorted_feed")
    with pytest.raises(FeedNotFound):
        run(insert, "", "item", *at_end)
    order = ("order", "list" if variant else "links")
    run("feed/create", *told("create"), "m", "", "sorted_feed", *order)
    assert run(insert, "", "item", *at_end) == "1"
    assert run(insert, "2", "item", *at_end) == "2"
    assert run(insert, "2", "item", *at_end) == "2"
    with pytest.raises(Exists):
        run(insert, "2", "another", *at_end)
    assert run(insert, "", "item", "begin", *at_end[1:]) == "3"
    for where in ("before", "after"):
        assert run(insert, where, "item", where, "1", *at_end[2:]) == where
        with pytest.raises(ItemNotFound):
            run(insert, "", "item", where, "nobody", *at_end[2:])
    move = f"sorted_feed/{variant}move"
    for where, ref in (("begin", ""), ("end", ""), ("before", "2"), ("after", "2")):
        assert run(move, "1", where, ref, *told("position"), "p", "sorted_feed") == 1
    assert run(move, "1", "before", "1", *told("position"), "p", "sorted_feed") == 0
    for id, ref in (("nobody", "1"), ("1", "nobody")):
        with pytest.raises(ItemNotFound):
            run(move, id, "before", ref, *told("position"), "p", "sorted_feed")
    if not variant:
        moves, *ids = run("sorted_feed/walk", "", "")
        assert ids == ["3", "before", "after", "2", "1", ""]
        assert run("sorted_feed/walk", "2", moves) == [moves, "1", ""]
        assert run("sorted_feed/walk", "2", "elsewhere") == [moves]
    assert run("sorted_feed/edit", "1", "edited", *told("edit"), "sorted_feed") == "1"
    assert run(f"sorted_feed/{variant}retract", "1", *told("retract"), "sorted_feed") == "1"
    with pytest.raises(ItemNotFound):
        run("sorted_feed/edit", "1", "edited", *told("edit"), "sorted_feed")
    with pytest.raises(ItemNotFound):
        run(f"sorted_feed/{variant}retract", "1", *told("retract"), "sorted_feed")
    other = "sorted_feed/insert" if variant else "sorted_feed/list_insert"
    for script, args in ((other, ("", "item", *at_end)), ("feed/retract", ("2", "c", "feed"))):
        with pytest.raises(FeedNotFound):
            run(script, *args)
    run("feed/delete", *told("delete"), "m")

"""All scripts on all their paths, each within the fence: on one server, or on a cluster."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from phonon_kombu.errors import Closing, Exists, FeedNotFound, FieldFull, NotHeld
from phonon_kombu.phonon.fields import (
    CountDistinct,
    Histogram,
    Layout,
    ListAppend,
    Max,
    Mean,
    Min,
    SetAppend,
    Sum,
    TopN,
    WindowedList,
)
from phonon_kombu.store import scripts
from phonon_kombu.store.keys import ExchangeKeys, NodeKeys
from phonon_kombu.store.phonon_keys import AggregateKeys, ChordKeys, ReferenceKeys
from phonon_kombu.store.scripts import Prepared
from phonon_kombu.thoonk.states import STATES
from tests.lua.feeds import run_feed_scripts
from tests.lua.machine import HOUR_MS, Machine


def lifetime(m: Machine) -> None:
    """put and touch of a queue that expires."""
    m.configure(expires=HOUR_MS)
    with m.fence():
        m.put("x", level=3)
        m.put("y", delay_ms=1, ttl_ms=1, level=9)
        m.shelve("z", level=2)
        assert m.touch() == HOUR_MS


def simple_queue(m: Machine) -> None:
    """queue/put and queue/get, all paths."""
    m.configure(type="queue")
    with m.fence():
        for front in ("", "1"):
            assert m.run("queue/put", f"x{front}", "item", front, "queue") == f"x{front}"
            assert m.run("queue/put", f"x{front}", "item", front, "queue") == f"x{front}"
        with pytest.raises(Exists):
            m.run("queue/put", "x", "another", "", "queue")
        assert [m.run("queue/get", "queue") for _ in range(3)] == ["item", "item", None]
        for script, args in (("queue/put", ("x", "item", "")), ("queue/get", ())):
            with pytest.raises(FeedNotFound):
                m.run(script, *args, "pyqueue")


def exchange(m: Machine) -> None:
    """exchange/bind and exchange/unbind."""
    m.keys = ExchangeKeys("x")  # type: ignore[assignment]
    with m.fence():
        assert [m.run("exchange/bind", "a"), m.run("exchange/bind", "a")] == [1, 0]
        assert m.run("exchange/unbind", "a", "b") == 1
        assert m.run("exchange/unbind", "a", "b") == 0


def feeds(m: Machine) -> None:
    """feed/* and sorted_feed/*, all paths."""
    run_feed_scripts(m, fenced=True)


def nodes(m: Machine) -> None:
    """node/* and lock/*: join, beat, be judged, be buried, part."""
    m.keys = NodeKeys()  # type: ignore[assignment]
    with m.fence():
        assert m.run("node/beat", "n", "", "", "")[:2] == [0, 0]
        assert m.run("node/beat", "n", "7", "{}", "1")[:2] == [1, 0]
        overdue, shown, dying, at = m.run("node/census", HOUR_MS)
        assert (overdue, shown, dying) == ([], ["n", "7"], [])
        assert abs(at - m.clock_ms()) < HOUR_MS
        assert [m.run("node/bury", *args) for args in (("nobody", "", 0), ("n", "8", 0))] == [0, 0]
        assert m.run("node/bury", "n", "", HOUR_MS) == 0
        dead_ms = m.run("node/bury", "n", "7", 0)
        assert m.run("node/census", HOUR_MS)[:3] == [[], [], ["n", f"{dead_ms}"]]
        assert m.run("node/beat", "n", "", "", "")[:2] == [0, 1]
        assert m.run("node/part", "n", dead_ms - 1, "", held=m.keys.held("n")) == 0
        assert m.run("node/part", "n", dead_ms, HOUR_MS, held=m.keys.held("n")) == 0
        assert m.run("node/census", HOUR_MS)[:3] == [[], [], []]
        again_ms = int(m.client.zscore(m.keys.dying, "n"))
        assert m.run("node/part", "n", again_ms, "", held=m.keys.held("n")) == 1
        assert m.run("node/recall", "n", HOUR_MS, "{q}", held=m.keys.held("n")) == 1
        assert m.run("node/recall", "n", HOUR_MS, "{q}", held=m.keys.held("n")) == 0
        assert m.run("node/beat", "n", "8", "{}", "1")[:2] == [1, 0]
        assert m.run("node/recall", "n", HOUR_MS, "{q}", held=m.keys.held("n")) == 0
        assert m.run("node/part", "n", dead_ms, "", held=m.keys.held("n")) == 0
        assert m.run("node/part", "n", "", "", held=m.keys.held("n")) == 1
        assert m.run("node/beat", "n", "", "", "")[:2] == [0, 0]
        assert [m.run("lock/acquire", who, HOUR_MS) for who in "aab"] == [1, 1, 0]
        assert [m.run("lock/extend", who, HOUR_MS) for who in "ab"] == [1, 0]
        assert [m.run("lock/release", who) for who in "baa"] == [0, 1, 0]
        assert [m.run("node/elect", who, HOUR_MS) for who in "aa"] == [0, 0]
        assert 0 < m.run("node/elect", "b", HOUR_MS) <= HOUR_MS


def probe(m: Machine) -> None:
    """node/probe, which leaves nothing."""
    m.keys = NodeKeys()  # type: ignore[assignment]
    with m.fence():
        assert m.run("node/probe", *scripts.commands()) == []
    assert m.client.keys() == []


def results(m: Machine) -> None:
    """job/resolve with a result that ends; a second one in its place."""
    for n in (1, 2):
        m.put("x", f"item {n}")
        m.claim()
        with m.fence():
            assert m.resolve("x", keep_ms=HOUR_MS) == "x"


def lost(m: Machine) -> None:
    """job/relist, job/scan and job/census of a job in no state."""
    for level in (0, 7):
        m.put(f"x{level}", level=level)
        m.client.rpop(m.keys.levels[level])
    with m.fence():
        assert m.run("job/census") == [2, 0]
        assert len(m.run("job/scan", 0)) == 7
        assert m.relist("x0", "x7") == 2
        assert m.run("job/census") == [2, 2]


def slices(m: Machine) -> None:
    """Levels, ghosts, expired and due ones at once, for the scripts that walk over them."""
    m.configure(claim_timeout=HOUR_MS)
    for n in range(40):
        m.put(f"j{n}", level=n % 10, ttl_ms=HOUR_MS if n % 3 == 0 else "",
              delay_ms=HOUR_MS if n % 4 == 1 else "")  # fmt: skip
    for n in range(0, 40, 5):
        m.stall(f"j{n}")
    m.claim("A", 5)
    m.pass_time(2 * HOUR_MS)
    with m.fence():
        m.maintain()
        m.claim("A", 10, "highest", tuple(m.picture()["owners"]))
        m.claim("B", 5)
        m.recover("A", "cancel")
        m.finish("A", *m.picture()["items"])
        m.cancel("B", *m.picture()["owners"], delay_ms=5)
        listed = [id for state in STATES if state != "absent" for id in m.page(state, 3)]
        assert sorted(listed) == sorted(m.picture()["items"])
        m.purge(5)
        m.purge()


def task_results(m: Machine) -> None:
    """result/store and result/survey."""
    m.keys = SimpleNamespace(result=b"{r}")  # type: ignore[assignment]
    head, success = '{"status": "', '{"status": "SUCCESS"'
    with m.fence():
        for state, stored in (("STARTED", 1), ("SUCCESS", 1), ("FAILURE", 0)):
            value = f'{{"status": "{state}"}}'
            assert m.run("result/store", value, 60, head, success, "") == stored
        assert m.run("result/store", "x", "", "", "", "")[0].startswith(success)
        survey = Prepared(scripts.load("result/survey"), [b"{r}", b"{r}none"])
        assert m.call(survey, success) == [1, 0]


def references(m: Machine) -> None:
    """reference/*: held, stalled, given back; the last one out."""
    m.keys = ReferenceKeys("x")  # type: ignore[assignment]
    with m.fence():
        assert [m.run("reference/hold", holder, "n") for holder in "abcd"] == [1, 2, 3, 4]
        assert m.run("reference/finish", "a", "n", "t", HOUR_MS) == 0
        assert m.run("reference/cancel", "b", "n", "t", HOUR_MS) == 0
        assert [m.run("reference/stall", "c", "n", "why") for _ in range(2)] == ["c", "c"]
        assert m.run("reference/retry", "c", "n") == "c"
        assert m.run("reference/recover", "n", 0, "t", HOUR_MS) == ["0", 2, 1]
        assert m.run("reference/lease", "t", HOUR_MS) == 0
        assert [m.run("reference/close", who) for who in "ut"] == [0, 1]


def chords(m: Machine) -> None:
    """chord/*: open, grow, arrive in all ways, be taken over, close."""
    m.keys = ChordKeys("g")  # type: ignore[assignment]
    result = ("", "", "", "", "")
    with m.fence():
        for cause, done in (("", 1), ("x", 1), ("x", 0), ("y", 1)):
            assert m.run("chord/open", "g", cause, 60, "body", "b") == done
        assert m.run("chord/grow", "extra", 60) == 1
        assert m.run("chord/size", "g", 1) == 0
        first = ("g", "a", 0, "part", "", "A", HOUR_MS, 60, *result)
        assert m.run("chord/arrive", *first) == [0, 1]
        assert m.run("chord/arrive", *first) == [2, 0]
        last = ("g", "extra", 0, "part", "1", "A", 0, 60, "v", 60, *result[2:])
        assert m.run("chord/arrive", *last, result=b"{chords}r")[:4] == [1, 2, 2, ""]
        assert m.run("chord/lease", "g", "B", HOUR_MS) == 0
        assert m.run("chord/lease", "g", "A", HOUR_MS) > 0
        assert [m.run("chord/close", "g", who, 60) for who in "AB"] == [0, 1]
        assert m.run("chord/lease", "g", "B", HOUR_MS) == -1
        assert m.run("chord/arrive", *first) == [2, 0]


def pointing(m: Machine) -> None:
    """chord/arrive that points at a result, and must prolong it; chord/forget."""
    m.keys = ChordKeys("g")  # type: ignore[assignment]
    head, success = '{"status": "', '{"status": "SUCCESS"'
    value = success + ' "v"}'
    with m.fence():
        assert m.run("chord/open", "g", "", 60, "size", 3) == 1

        def arrive(id: str, index: int, part: str = "") -> Any:
            return m.run("chord/arrive", "g", id, index, part, "", "A", HOUR_MS, 60, value, 60,
                         head, success, "", result=b"{chords}" + id.encode())  # fmt: skip

        assert arrive("a", 0) == [0, 1]
        assert arrive("a", 0) == [5, 0]
        assert m.run("chord/forget", "kept", result=b"{chords}a") == 1
        m.client.expire(m.keys.chord, 30)  # type: ignore[attr-defined]
        assert arrive("b", 1, "part") == [6, 0]
        m.client.expire(m.keys.chord, 60)  # type: ignore[attr-defined]
        assert [arrive("b", 1, "part"), arrive("c", 2)[:4]] == [[0, 2], [1, 3, 3, ""]]
        assert m.run("chord/close", "g", "A", 60) == 1
        assert m.run("chord/forget", "kept", result=b"{chords}b") == 0


def aggregating(m: Machine) -> None:
    """chord/fold: counted once, refused, failed, taken over; chord/close with fields."""
    layout = Layout({"n": Sum(), "l": ListAppend(1)})
    keys = AggregateKeys("g", layout.keys("g", "", "chord", "chords"))
    m.keys = keys  # type: ignore[assignment]
    with m.fence():
        assert m.run("chord/open", "g", "", 60, "size", 2, "unique", 1) == 1
        last = ("", "", "", "", "")

        def fold(id: str, index: int, lease: int = HOUR_MS, **values: Any) -> Any:
            return m.run("chord/fold", "g", id, index, "A", lease, 60, *last,
                         *layout.encode_delta(values))  # fmt: skip

        assert [fold("a", 0, n=1, l=1), fold("a", 0, n=1, l=1)] == [[0, 1], [2, 0]]
        with pytest.raises(FieldFull):
            fold("b", 1, n=1, l=2)
        assert fold("b", 1, lease=0, n=1)[:4] == [1, 2, 2, ""]
        assert fold("b", 1, n=1)[:4] == [1, 2, 2, ""]
        assert m.run("chord/close", "g", "A", 60) == 1
    assert not m.client.exists(*keys.fields)


def rules(m: Machine) -> None:
    """A queue with all rules at once, of which each is used."""
    m.configure(
        message_ttl=HOUR_MS, max_length=2, dead_exchange="", rate_interval=1000, rate_burst=1,
        expires=HOUR_MS, rules=1,
    )  # fmt: skip
    with m.fence():
        for n in range(5):
            m.put(f"x{n}", level=n, dedup_id=f"d{n}", dedup_ttl_ms=1 if n % 2 else "")
        m.put("y", dedup_id="d0", front=True)
        assert m.claim("A", 5).due_in_ms >= 0
        m.reject("A", *m.picture()["owners"])
    m.pass_time(2 * HOUR_MS)
    with m.fence():
        m.put("z", dedup_id="d")
        m.maintain()
        m.stats()


def folding(m: Machine) -> None:
    """model/fold and model/read: every kind of field, with and without bounds that are near."""
    layout = Layout(
        {
            "n": Sum(), "f": Sum(float), "low": Min(), "high": Max(), "mean": Mean(),
            "l": ListAppend(), "s": SetAppend(3), "c": CountDistinct(), "w": WindowedList(2, 5),
            "t": TopN(2), "b": TopN(2, largest=False), "h": Histogram([1]),
        }
    )  # fmt: skip
    m.keys = layout.keys("x")  # type: ignore[assignment]
    values = {
        **{name: [1, 2, 3] for name in layout.fields}, "w": [(1, 1), (2, 2), (9, 3)]
    }  # fmt: skip
    with m.fence():
        for number in (1, 2):
            assert m.run("model/fold", "me", number, HOUR_MS, *layout.encode_delta(values)) == 1
        assert m.run("model/fold", "me", 2, "", *layout.encode_delta(values)) == 0
        with pytest.raises(FieldFull):
            m.run("model/fold", "", "", "", *layout.encode_delta({"n": 1, "s": 4}))
        assert len(m.run(*read_words(layout))) == 7


def read_words(layout: Layout) -> tuple[Any, ...]:
    """The name and the arguments of the script that reads a record."""
    prepared, args = layout.read_call(layout.keys("x"))
    return prepared.script.name, *args


def records(m: Machine) -> None:
    """model/*: held by two, flushed, left, closing, closed; abandoned and adopted."""
    layout = Layout({"n": Sum(), "s": SetAppend(1)})
    m.keys = layout.keys("x")  # type: ignore[assignment]
    delta = layout.encode_delta({"n": 1, "s": "a"})
    full = layout.encode_delta({"n": 1, "s": "b"})

    def flush(owner: str, number: int, delta: list[bytes] = delta, *told: str) -> Any:
        ids, acknowledged = [t for t in told if t[0] == "m"], [t for t in told if t[0] != "m"]
        counts = len(ids), len(acknowledged)
        words = [*ids, *(t[1:] for t in acknowledged)]
        return m.run("model/flush", owner, number, 1, *counts, *words, *delta)

    def leave(
        owner: str, number: int, delta: list[bytes] = delta, *ids: str, marks: str = ""
    ) -> Any:
        counts = len(ids), 0, len(delta), marks
        return m.run("model/leave", owner, number, 1, *counts, *ids, *delta, *delta)

    later = 10**15
    with m.fence():
        for call in (lambda: flush("a", 1), lambda: leave("a", 1)):
            with pytest.raises(NotHeld):
                call()
        assert [m.run("model/hold", owner) for owner in "aab"] == [1, 1, 2]
        assert [flush("a", 1, delta, "m1") for _ in range(2)] == [1, 0]
        for call in (lambda: flush("a", 2, full), lambda: leave("a", 2, full)):
            with pytest.raises(FieldFull):
                call()
        assert m.run("model/close", "a") == 0
        assert m.run("model/adopt", "a") is None
        # A message that comes again is known until it was acknowledged.
        assert flush("b", 1, delta, "m0", "m1") == ["m1"]
        assert leave("b", 1, delta, "m1") == ["m1"]
        assert [flush("a", 2, delta, "m2", "-m1"), flush("b", 2, delta, "m1")] == [1, 1]
        assert [leave("a", 3), leave("a", 3)] == [0, 0]
        assert [leave("b", 4, delta, "m3", marks="t") for _ in range(2)] == [1, 1]
        assert m.run("model/hold", "c") == 1
        for call in (lambda: flush("c", 4), lambda: leave("c", 4)):
            with pytest.raises(Closing):
                call()
        # It began to complete the record after it was declared dead: it lives.
        assert m.run("model/abandon", "b", 1) == 2
        assert m.run("model/abandon", "b", later) == 0
        assert flush("c", 5, delta, "m3") == 1
        assert m.run("model/abandon", "c", later) == 1
        assert [m.run("model/adopt", owner) for owner in "dde"] == ["1", "1", None]
        assert m.run(*read_words(layout))[0] == ["6"]
        assert [m.run("model/close", owner) for owner in "edd"] == [0, 1, 0]
        assert m.run(*read_words(layout))[0] == [None]
        assert m.run("model/abandon", "c", later) == 0
        # Nothing but repetitions: there is nothing to complete.
        assert m.run("model/hold", "f") == 1
        assert leave("f", 6, [], marks="n") == 0
        assert m.run("model/hold", "f") == 1
        assert leave("f", 7, []) == 1


PATHS: list[Callable[[Machine], None]] = [
    task_results, references, chords, pointing, aggregating, probe,
    lifetime, simple_queue, exchange, feeds, nodes, results, lost, slices, rules, folding,
    records,
]  # fmt: skip

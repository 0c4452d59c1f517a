"""Cases of what is done to jobs that wait: put, claim, purge, maintain."""

from __future__ import annotations

from typing import Any

from tests.lua.cases import case, seeds_in
from tests.lua.machine import HOUR_MS, Machine
from tests.lua.pictures import Change

# A case is read across, as a row of a table:
# fmt: off

ITEM = "item of x"


def _put(c: Change, id: str = "x", item: str = ITEM, level: int = 0) -> Change:
    c.set("items", id, item).set("published", id, c.now).count("publishes")
    return c.set("priorities", id, level) if level else c


ABSENT = seeds_in("absent")
case("put", ABSENT, lambda m: m.put("x"), "ready", "x", lambda c: _put(c).back("x").wake())
case("put", ABSENT, lambda m: m.put("x", level=5), "ready", "x",
     lambda c: _put(c, level=5).back("x", level=5).wake(), "level 5")
case("put", "absent", lambda m: m.put("x", level=5, front=True), "ready", "x",
     lambda c: _put(c, level=5).front("x", level=5).wake(), "in front")
case("put", "absent", lambda m: m.put("x", ttl_ms=HOUR_MS), "ready", "x",
     lambda c: _put(c).set("deadlines", "x", c.now + HOUR_MS).back("x").wake(), "ttl")
case("put", "absent", lambda m: m.put("x", delay_ms=0), "ready", "x",
     lambda c: _put(c).back("x").wake(), "delay 0")
case("put", ABSENT, lambda m: m.put("x", delay_ms=HOUR_MS), "scheduled", "x",
     lambda c: _put(c).set("scheduled", "x", c.now + HOUR_MS).wake(), "due first")
case("put", "absent", lambda m: m.put("x", delay_ms=2000 * HOUR_MS), "scheduled", "x",
     lambda c: _put(c).set("scheduled", "x", c.now + 2000 * HOUR_MS), "due last: no wake")
case("put", "absent", lambda m: m.put("x", delay_ms=HOUR_MS, ttl_ms=1, level=2), "scheduled", "x",
     lambda c: (_put(c, level=2).set("scheduled", "x", c.now + HOUR_MS)
                .set("deadlines", "x", c.now + 1).wake()), "delay, ttl and level")
case("put", "absent", lambda m: m.put("x", binding="b"), "ready", "x",
     lambda c: _put(c).back("x").wake(), "bound", b="1")
case("put", "absent", lambda m: m.put("x", other_id="y"), "ready", "x",
     lambda c: _put(c).back("x").wake(), "other id not needed")

THERE = seeds_in("ready", "scheduled", "claimed", "stalled")
case("put", THERE, lambda m: m.put("x"), "same", "x", about="again")
case("put", THERE, lambda m: m.put("x", level=7, front=True, delay_ms=9, ttl_ms=9, other_id="y"),
     "same", "x", about="again with other options")
case("put", THERE, lambda m: m.put("x", "another item"), "EXISTS", about="another item")
case("put", THERE, lambda m: m.put("x", "another item", other_id="y", level=4), "same", "y",
     lambda c: _put(c, "y", "another item", 4).back("y", level=4).wake(), "by its other id")
case("put", THERE, lambda m: m.put("x", "item of c", other_id="c"), "same", "c",
     about="by its other id, again")
case("put", THERE, lambda m: m.put("x", "another item", other_id="c"), "EXISTS",
     about="other id taken too")
case("put", (*ABSENT, *THERE), lambda m: m.put("x", binding="b"), "UNBOUND", about="unbound", a="1")
case("put", (*ABSENT, *THERE), lambda m: m.put("x", "another item", other_id="y"), "QUEUEFULL",
     about="queue full", max_length=1, overflow="reject-publish")
case("put", THERE, lambda m: m.put("x"), "same", "x", about="again, queue full", max_length=1,
     overflow="reject-publish")
case("put", "absent", lambda m: m.put("x"), "ready", "x", lambda c: _put(c).back("x").wake(),
     "not full yet", max_length=2, overflow="reject-publish")
case("put", "absent", lambda m: m.put("x", delay_ms=HOUR_MS), "scheduled", "x",
     lambda c: _put(c).set("scheduled", "x", c.now + HOUR_MS).wake(), "later, queue full",
     max_length=1, overflow="reject-publish")


def _r_dropped(c: Change) -> Change:
    return c.take("t", 9).haunt("t", -1).take("r", 5).gone("r")


case("put", ("absent", "finished"), lambda m: m.put("x"), "ready", "x",
     lambda c: _r_dropped(_put(c).back("x").wake()), "drops the oldest", max_length=1)
case("put", "absent", lambda m: m.put("x"), "ready", "x",
     lambda c: _r_dropped(_put(c).back("x").wake()).bury("maxlen", "r"),
     "drops the oldest to an exchange", max_length=1, dead_exchange="dlx")
case("put", "absent", lambda m: m.put("x", level=9), "absent", "x",
     lambda c: (_put(c).back("x", level=9).wake().take("t", 9).haunt("t", -1).take("x", 9)
                .gone("x").bury("maxlen", "x")), "is the least urgent", max_length=1,
     dead_exchange="dlx")
case("put", ("ready", "ready, released"), lambda m: m.put("y", order="highest"), "absent", "y",
     lambda c: _put(c, "y", "item of y").back("y").wake().take("x").gone("x"),
     "of another, highest first", max_length=2)
case("put", "ready, level 4", lambda m: m.put("y", level=3), "ready", "y",
     lambda c: _r_dropped(_put(c, "y", "item of y", 3).back("y", level=3).wake()),
     "of another", max_length=2)
case("put", "absent", lambda m: m.put("x"), "ready", "x",
     lambda c: _put(c).set("deadlines", "x", c.now + HOUR_MS).back("x").wake(), "message_ttl",
     message_ttl=HOUR_MS)
case("put", "absent", lambda m: m.put("x", ttl_ms=2 * HOUR_MS, delay_ms=HOUR_MS), "scheduled", "x",
     lambda c: (_put(c).set("deadlines", "x", c.now + 2 * HOUR_MS)
                .set("scheduled", "x", c.now + HOUR_MS).wake()), "own ttl is shorter",
     message_ttl=3 * HOUR_MS)
case("put", "absent", lambda m: m.put("x", ttl_ms=9 * HOUR_MS, delay_ms=HOUR_MS), "scheduled", "x",
     lambda c: (_put(c).set("deadlines", "x", c.now + 4 * HOUR_MS)
                .set("scheduled", "x", c.now + HOUR_MS).wake()), "message_ttl begins when due",
     message_ttl=3 * HOUR_MS)


def _unique(c: Change, holder: str = "jx", lasts_ms: int = 60_000) -> Change:
    return c.set("unique", "d", holder).set("unique_ends", "d", c.now + lasts_ms)


case("put", ABSENT, lambda m: m.put("x", dedup_id="d"), "ready", "x",
     lambda c: _unique(_put(c).back("x").wake()), "unique")
case("put", "absent", lambda m: m.put("x", dedup_id="d", dedup_ttl_ms=HOUR_MS), "ready", "x",
     lambda c: _unique(_put(c).back("x").wake(), "tx", HOUR_MS), "unique for a time")
case("put", "absent", lambda m: (m.put("y", dedup_id="d"), m.put("x", dedup_id="d"))[1], "absent",
     ["y"], lambda c: (_unique(_put(c, "y", "item of y").back("y").wake(), "jy")
                       .count("duplicates")), "duplicate")
case("put", "absent",
     lambda m: [m.put("y", dedup_id="d", dedup_ttl_ms=HOUR_MS), m.retract("y"),
                m.put("x", dedup_id="d", dedup_ttl_ms=HOUR_MS)][2],
     "absent", ["y"],
     lambda c: (_unique(_put(c, "y", "item of y").back("y").wake(), "ty", HOUR_MS).gone("y")
                .haunt("y").count("duplicates")), "duplicate of one that is gone")
case("put", "absent",
     lambda m: [m.put("y", dedup_id="d"), m.put("x", dedup_id="d", dedup_of="y")][1], "ready", "x",
     lambda c: _unique(_put(_put(c, "y", "item of y").back("y")).back("x").wake()), "successor")
case("put", "absent",
     lambda m: [m.put("y", dedup_id="d"), m.retract("y"), m.put("x", dedup_id="d")][2], "ready",
     "x", lambda c: (_unique(_put(_put(c, "y", "item of y").back("y").gone("y").haunt("y"))
                             .back("x").wake())), "free again")
case("put", seeds_in("claimed"),
     lambda m: [m.put("y", dedup_id="d"), m.put("y", dedup_id="d")][1], "same", "y",
     lambda c: _unique(_put(c, "y", "item of y").back("y").wake(), "jy"),
     "of another, repeated: no duplicate")


case("append", ("absent", "finished"), lambda m: m.append("x"), "ready", "x",
     lambda c: _put(c).back("x").wake())
case("append", "retracted", lambda m: m.append("x"), "ready", "x", lambda c: _put(c).back("x"),
     "behind its ghost: no new wake")
case("append", "absent", lambda m: (m.put("y"), m.client.delete(m.keys.wake), m.append("x"))[2],
     "ready", "x", lambda c: _put(_put(c, "y", "item of y").back("y")).back("x"),
     "behind another: no new wake")
case("append", THERE, lambda m: m.append("x"), "same", "x", about="again")
case("append", THERE, lambda m: m.append("x", "another item"), "EXISTS", about="another item")
case("append", seeds_in("claimed"), lambda m: m.append("x", "another item", "y"), "same", "y",
     lambda c: _put(c, "y", "another item").back("y").wake(), "by its other id")
case("append", THERE, lambda m: m.append("x", "item of c", "c"), "same", "c",
     about="by its other id, again")
case("append", THERE, lambda m: m.append("x", "another item", "c"), "EXISTS",
     about="other id taken too")
case("append", (*ABSENT, *THERE), lambda m: m.append("x"), "RULED", about="has rules", rules="1")


def _shelved(c: Change, id: str = "x", item: str = ITEM) -> Change:
    return c.set("items", id, item).count("publishes").stall(id, "because")


case("shelve", "retracted", lambda m: m.shelve("x", level=3), "stalled", "x",
     lambda c: _shelved(c).set("priorities", "x", 3), "level 3")
case("shelve", ABSENT, lambda m: m.shelve("x"), "stalled", "x", _shelved)
case("shelve", "absent", lambda m: m.shelve("x", binding="b"), "stalled", "x", _shelved,
     "bound", b="1")
case("shelve", THERE, lambda m: m.shelve("x"), "same", "x", about="again")
case("shelve", THERE, lambda m: m.shelve("x", "another item"), "EXISTS", about="another item")
case("shelve", THERE, lambda m: m.shelve("x", "another item", "x~"), "same", "x~1",
     lambda c: _shelved(c, "x~1", "another item"), "numbered")
case("shelve", (*ABSENT, *THERE), lambda m: m.shelve("x", binding="b"), "UNBOUND",
     about="unbound", a="1")


def _claimed(c: Change, level: int = 0, owner: str = "A") -> Change:
    return c.take("x", level).set("claimed", "x", c.now).set("owners", "x", owner)


def _promoted(c: Change) -> Change:
    return c.drop("x", "scheduled")


def _claim(m: Machine) -> Any:
    return m.claim("A").jobs


READY = ("ready", "ready, expires", "ready, released")
case("claim", READY, _claim, "claimed", [("x", ITEM, None)], lambda c: _claimed(c).wake())
case("claim", "ready, level 4", _claim, "claimed", [("x", ITEM, None)],
     lambda c: _claimed(c, 4).wake())
case("claim", "ready, redelivered", _claim, "claimed", [("x", ITEM, 0)],
     lambda c: _claimed(c).wake())
case("claim", ("ready, failed", "ready, taken from A"), _claim, "claimed", [("x", ITEM, 1)],
     lambda c: _claimed(c).wake())
case("claim", ("ready, with a ghost", "ready, retried"), _claim, "claimed", [("x", ITEM, None)],
     lambda c: _claimed(c.take("x").haunt("x", -1)).wake(), "past a ghost")
case("claim", READY, lambda m: m.claim("A", order="highest").ids, "ready", ["r"],
     lambda c: (c.take("t", 9).haunt("t", -1).take("r", 5).set("claimed", "r", c.now)
                .set("owners", "r", "A").wake()), "highest first")
case("claim", READY, lambda m: m.claim("A", 0).jobs, "ready", [], lambda c: c.wake(), "none")
case("claim", "ready, expired", lambda m: m.claim("A").ids, "absent", ["r"],
     lambda c: (c.take("x").gone("x").take("r", 5).set("claimed", "r", c.now)
                .set("owners", "r", "A").wake()))
case("claim", "ready, expired", lambda m: m.claim("A").ids, "absent", ["r"],
     lambda c: (c.take("x").gone("x").take("r", 5).set("claimed", "r", c.now)
                .set("owners", "r", "A").wake().bury("expired", "x")), "to an exchange",
     dead_exchange="dlx")
case("claim", "ready, level 4", lambda m: m.claim("A", 9).ids, "claimed", ["x", "r"],
     lambda c: (_claimed(c, 4).take("r", 5).set("claimed", "r", c.now).set("owners", "r", "A")
                .take("t", 9).haunt("t", -1)), "all: no wake is left")
case("claim", "scheduled, due", _claim, "claimed", [("x", ITEM, None)],
     lambda c: _claimed(_promoted(c).front("x")).wake())
case("claim", "scheduled, due", lambda m: m.claim("A", order="highest").ids, "ready", ["r"],
     lambda c: (_promoted(c).back("x").take("t", 9).haunt("t", -1).take("r", 5)
                .set("claimed", "r", c.now).set("owners", "r", "A").wake()), "others first")
case("claim", "scheduled, due, expired", lambda m: m.claim("A").ids, "absent", ["r"],
     lambda c: (_promoted(c).gone("x").take("r", 5).set("claimed", "r", c.now)
                .set("owners", "r", "A").wake()))


def takes_r(c: Change) -> Change:
    return c.take("r", 5).set("claimed", "r", c.now).set("owners", "r", "A").wake()


ELSEWHERE = (*seeds_in("absent", but=("retracted",)), "scheduled", "scheduled, level 4",
             "scheduled, expired", *seeds_in("claimed"), "stalled while scheduled",
             "stalled while claimed", "stalled, failed too often")
case("claim", ELSEWHERE, lambda m: m.claim("A").ids, "same", ["r"], takes_r, "of another")
case("claim", ("stalled", "retracted"), lambda m: m.claim("A").ids, "same", ["r"],
     lambda c: takes_r(c.take("x").haunt("x", -1)), "of another, past a ghost")
case("claim", "stalled, level 4", lambda m: m.claim("A").ids, "same", ["r"],
     lambda c: takes_r(c.take("x", 4).haunt("x", -1)), "of another, past a ghost")


case("claim", (*seeds_in("absent", "ready", "scheduled", "claimed", "stalled"),),
     lambda m: (m.claim("A", 9).jobs, m.client.exists(m.keys.wake)), "same", ([], 0),
     about="of a paused queue", paused="1")


def _rest_purged(c: Change) -> Change:
    """All that waits but `x` is purged."""
    c.take("r", 5).gone("r").take("t", 9).haunt("t", -1)
    return c.drop("s", "scheduled").gone("s")


PURGED = seeds_in("ready", but=("ready, level 4", "ready, with a ghost", "ready, retried"))
case("purge", PURGED, lambda m: m.purge(), "absent", [3, 0],
     lambda c: _rest_purged(c.take("x").gone("x")))
case("purge", "ready, level 4", lambda m: m.purge(), "absent", [3, 0],
     lambda c: _rest_purged(c.take("x", 4).gone("x")))
case("purge", ("ready, with a ghost", "ready, retried"), lambda m: m.purge(), "absent", [3, 0],
     lambda c: _rest_purged(c.take("x").take("x").haunt("x", -1).gone("x")))
case("purge", PURGED, lambda m: m.purge(1), "absent", [1, 1],
     lambda c: c.take("x").gone("x"), "slice of 1")
case("purge", PURGED, lambda m: m.purge(0), "ready", [0, 1], about="slice of 0")
case("purge", seeds_in("scheduled"), lambda m: m.purge(), "absent", [3, 0],
     lambda c: _rest_purged(c.drop("x", "scheduled").gone("x")))
case("purge", seeds_in("scheduled"), lambda m: m.purge(1), "scheduled", [1, 1],
     lambda c: c.take("r", 5).gone("r"), "slice of 1")
case("purge", seeds_in("scheduled"), lambda m: m.purge(2), "absent", [2, 1],
     lambda c: (c.take("r", 5).gone("r").take("t", 9).haunt("t", -1)
                .drop("x", "scheduled").gone("x")), "slice of 2")
case("purge", ("absent", "finished", *seeds_in("claimed"), "stalled while claimed",
               "stalled while scheduled", "stalled, failed too often"),
     lambda m: m.purge(), "same", [2, 0], _rest_purged)
case("purge", ("stalled", "retracted"), lambda m: m.purge(), "same", [2, 0],
     lambda c: _rest_purged(c.take("x").haunt("x", -1)), "past a ghost")


def _marked(c: Change) -> Change:
    put_at = int(c.parts["published"]["x"])
    return c.set("owners", "x", f"late:{put_at}:{c.parts['owners']['x']}")


MAINTAINED = (*seeds_in("absent", "stalled"), *seeds_in("ready", but=("ready, expired",)),
              "scheduled", "scheduled, level 4", *seeds_in("claimed", but=("claimed, expired",)))
case("maintain", MAINTAINED, lambda m: m.maintain(), "same", [0, 0, 0])
case("maintain", "ready, expired", lambda m: m.maintain(), "absent", [0, 1, 0],
     lambda c: c.haunt("x").gone("x"))
case("maintain", "scheduled, expired", lambda m: m.maintain(), "absent", [0, 1, 0],
     lambda c: c.drop("x", "scheduled").gone("x"))
case("maintain", "scheduled, due", lambda m: m.maintain(), "ready", [1, 0, 0],
     lambda c: _promoted(c).back("x").wake())
case("maintain", "scheduled, due, expired", lambda m: m.maintain(), "absent", [1, 1, 0],
     lambda c: _promoted(c).back("x").haunt("x").gone("x").wake())
case("maintain", "claimed, expired", lambda m: m.maintain(), "claimed", [0, 0, 0],
     lambda c: c.drop("x", "deadlines"), "what runs, runs to its end")
case("maintain", ("claimed", "claimed by another", "claimed, failed twice", "claimed, level 4"),
     lambda m: m.maintain(), "claimed", [0, 0, 0], about="in time", claim_timeout=50 * HOUR_MS)
case("maintain", "claimed long ago", lambda m: m.maintain(), "ready", [0, 0, 1],
     lambda c: (_marked(c).drop("x", "claimed").set("cancelled", "x", 1).front("x").wake()),
     "claim_timeout", claim_timeout=50 * HOUR_MS)
case("maintain", "claimed long ago", lambda m: m.maintain(max_deliveries=1), "stalled", [0, 0, 1],
     lambda c: (c.drop("x", "claimed", "owners", "published")
                .stall("x", "max_deliveries: failed 1 times")),
     "claim_timeout, at the limit", claim_timeout=50 * HOUR_MS)
case("maintain", ("ready, expired",), lambda m: m.maintain(), "absent", [0, 1, 0],
     lambda c: c.haunt("x").gone("x").bury("expired", "x"), "to an exchange", dead_exchange="dlx")
case("maintain", "scheduled, expired", lambda m: m.maintain(), "absent", [0, 1, 0],
     lambda c: c.drop("x", "scheduled").gone("x").bury("expired", "x"), "to an exchange",
     dead_exchange="dlx")

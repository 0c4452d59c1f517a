"""Cases of what is done to jobs that are held, by an owner or by an operator."""

from __future__ import annotations

from tests.lua.cases import SEEDS, case, seeds_in
from tests.lua.cases_waiting import ITEM, takes_r
from tests.lua.machine import HOUR_MS
from tests.lua.pictures import Change

# A case is read across, as a row of a table:
# fmt: off

UNHELD = seeds_in("absent", "ready", "scheduled", "stalled")
STRANGE = seeds_in("absent", "ready", "scheduled", "stalled", but=("ready, taken from A",))
CLAIMED = seeds_in("claimed", but=("claimed by another",))


def _released(c: Change) -> Change:
    return c.drop("x", "claimed", "owners")


def _lasting(c: Change) -> Change:
    """Its deadline is forgotten."""
    c.parts.get("deadlines", {}).pop("x", None)
    return c


def _marked(c: Change) -> Change:
    """The claim was taken from its owner, who may still finish the job."""
    put_at = int(c.parts["published"]["x"])
    mark = f"late:{put_at}:{c.parts['owners']['x']}"
    return _lasting(c).drop("x", "claimed").set("owners", "x", mark)


def _done(c: Change) -> Change:
    return _released(c).gone("x").count("finishes")


for owner in ("A", ""):
    strange = STRANGE if owner else UNHELD
    case("finish", CLAIMED, lambda m, o=owner: m.finish(o, "x"), "absent", 1, _done,
         f"as {owner or 'anybody'}")
    case("finish", strange, lambda m, o=owner: m.finish(o, "x"), "same", 0,
         about=f"as {owner or 'anybody'}")
case("finish", CLAIMED, lambda m: m.finish("A", "nobody", "c", "x", "r", "s", "t"), "absent", 1,
     _done, "among others")
case("finish", "claimed", lambda m: m.finish("A", "x", "x"), "absent", 1, _done, "named twice")
case("finish", "claimed by another", lambda m: m.finish("A", "x"), "same", 0, about="as A")
case("finish", "ready, taken from A", lambda m: m.finish("A", "r", "x", "c"), "absent", 1,
     lambda c: c.haunt("x").gone("x").drop("x", "owners").count("finishes"), "late")
case("finish", "ready, taken from A", lambda m: m.finish("A", "x", "x"), "absent", 1,
     lambda c: c.haunt("x").gone("x").drop("x", "owners").count("finishes"), "late, named twice")
case("finish", "ready, taken from A", lambda m: m.finish("B", "x"), "same", 0, about="late, as B")
case("claim", CLAIMED, lambda m: m.claim("A", finished=("x",)).ids, "absent", ["r"],
     lambda c: takes_r(_done(c)), "after finishing it")
case("claim", CLAIMED, lambda m: m.claim("A", 0, "", ("nobody", "c", "x", "r", "s", "t")).ids,
     "absent", [], lambda c: _done(c).wake(), "none, after finishing it among others")
case("claim", "claimed", lambda m: m.claim("A", 9, "highest", ("x", "x")).ids, "absent", ["r"],
     lambda c: takes_r(_done(c)).take("t", 9).haunt("t", -1).wake(False),
     "after finishing it, named twice")
case("claim", CLAIMED, lambda m: m.claim("A", finished=("x",)).ids, "absent", [], _done,
     "after finishing it, of a paused queue", paused="1")
case("claim", "claimed by another", lambda m: m.claim("A", finished=("x",)).ids, "same", ["r"],
     takes_r, "after finishing what is not its own")
case("claim", "ready, taken from A", lambda m: m.claim("A", finished=("x",)).ids, "absent", ["r"],
     lambda c: takes_r(c.gone("x").drop("x", "owners").count("finishes").take("x")),
     "after finishing it late")
case("claim", "ready, taken from A", lambda m: m.claim("B", 1, "", ("x",)).jobs, "claimed",
     [("x", ITEM, 1)], lambda c: (c.take("x").set("claimed", "x", c.now).set("owners", "x", "B")
                                  .wake()), "after finishing what is not its own")
case("resolve", "ready, taken from A", lambda m: m.resolve("x", "A"), "absent", "x",
     lambda c: c.haunt("x").gone("x").drop("x", "owners").count("finishes"), "late")
case("resolve", "ready, taken from A", lambda m: m.resolve("x", "B"), "NOTCLAIMED",
     about="late, as B")
case("finish", "claimed by another", lambda m: m.finish("", "x"), "absent", 1, _done, "as anybody")

for owner in ("A", ""):
    case("reject", CLAIMED, lambda m, o=owner: m.reject(o, "x"), "absent", [1, 0], _done,
         f"as {owner or 'anybody'}")
    case("reject", CLAIMED, lambda m, o=owner: m.reject(o, "x"), "absent", [1, 1],
         lambda c: _done(c).bury("rejected", "x"), f"as {owner or 'anybody'}, to an exchange",
         dead_exchange="")
    case("reject", UNHELD, lambda m, o=owner: m.reject(o, "x"), "same", [0, 0],
         about=f"as {owner or 'anybody'}")
case("reject", CLAIMED, lambda m: m.reject("A", "nobody", "c", "x", "x", "r", "s", "t"), "absent",
     [1, 1], lambda c: _done(c).bury("rejected", "x"), "among others", dead_exchange="dlx")
case("reject", "claimed by another", lambda m: m.reject("A", "x"), "same", [0, 1], about="as A",
     dead_exchange="dlx")

for owner in ("A", ""):
    strange = STRANGE if owner else UNHELD
    case("resolve", CLAIMED, lambda m, o=owner: m.resolve("x", o), "absent", "x", _done,
         f"as {owner or 'anybody'}")
    case("resolve", strange, lambda m, o=owner: m.resolve("x", o),
         "NOTCLAIMED", about=f"as {owner or 'anybody'}")
case("resolve", "claimed by another", lambda m: m.resolve("x", "A"), "NOTCLAIMED", about="as A")

FAILURES = dict.fromkeys(CLAIMED) | {"claimed, failed twice": 2}
LEVEL = dict.fromkeys(CLAIMED, 0) | {"claimed, level 4": 4}
for seed in CLAIMED:
    level, failures = LEVEL[seed], FAILURES[seed]

    def cancelled(c: Change, times: int = (failures or 0) + 1) -> Change:
        return _lasting(_released(c)).set("cancelled", "x", times)

    def restored(c: Change, times: int = failures or 0) -> Change:
        return _released(c).set("cancelled", "x", times)

    def in_front(c: Change, level: int = level) -> Change:
        return c.front("x", level=level).wake()

    def limited(c: Change, times: int = (failures or 0) + 1) -> Change:
        c.parts.get("cancelled", {}).pop("x", None)
        return _lasting(_released(c)).drop("x", "published").stall(
            "x", f"max_deliveries: failed {times} times"
        )

    case("cancel", seed, lambda m: m.cancel("A", "x"), "ready", 1,
         lambda c, f=in_front, g=cancelled: f(g(c)))
    case("cancel", seed, lambda m: m.cancel("", "x"), "ready", 1,
         lambda c, f=in_front, g=cancelled: f(g(c)), "as anybody")
    case("cancel", seed, lambda m: m.cancel("A", "x", limit=20), "ready", 1,
         lambda c, f=in_front, g=cancelled: f(g(c)), "below the limit")
    case("cancel", seed, lambda m: m.cancel("A", "x", mode="restore"), "ready", 1,
         lambda c, f=in_front, g=restored: f(g(c)), "restore")
    case("cancel", seed, lambda m: m.cancel("A", "x", mode="release"), "ready", 1,
         lambda c, f=in_front: f(_released(c)), "release")
    case("cancel", seed, lambda m: m.cancel("A", "x", delay_ms=HOUR_MS), "scheduled", 1,
         lambda c, g=cancelled: g(c).set("scheduled", "x", c.now + HOUR_MS).wake(), "delay")
    case("cancel", seed, lambda m: m.cancel("A", "x", delay_ms=0), "ready", 1,
         lambda c, f=in_front, g=cancelled: f(g(c)), "delay 0")
    case("cancel", seed, lambda m, n=(failures or 0) + 1: m.cancel("A", "x", limit=n), "stalled",
         1, limited, "at the limit")
    case("cancel", seed,
         lambda m, n=(failures or 0) + 1: m.cancel("A", "x", limit=n, delay_ms=HOUR_MS),
         "stalled", 1, limited, "at the limit, delay")
    case("recover", seed, lambda m: m.recover("A"), "ready", 1,
         lambda c, f=in_front, g=restored: f(g(c)))
    case("recover", seed, lambda m: m.recover("A", "cancel"), "ready", 1,
         lambda c, f=in_front, n=(failures or 0) + 1: f(_marked(c).set("cancelled", "x", n)),
         "counted")
    case("recover", seed, lambda m, n=(failures or 0) + 1: m.recover("A", "cancel", limit=n),
         "stalled", 1, limited, "at the limit")
    case("recover", seed, lambda m: m.recover("A", "cancel", limit=1), "ready", 1,
         lambda c, f=in_front, n=(failures or 0) + 1: f(_marked(c).set("cancelled", "x", n)),
         "the queue's limit goes before", max_deliveries=9)
    case("cancel", seed, lambda m: m.cancel("A", "x", limit=20), "stalled", 1, limited,
         "at the queue's limit", max_deliveries=(failures or 0) + 1)
    case("cancel", seed, lambda m: m.cancel("A", "x", limit=1), "ready", 1,
         lambda c, f=in_front, g=cancelled: f(g(c)), "the queue has no limit", max_deliveries=0)
case("cancel", "claimed", lambda m: m.cancel("A", "x", "x"), "ready", 1,
     lambda c: _released(c).set("cancelled", "x", 1).front("x").wake(), "named twice")
case("cancel", "claimed", lambda m: m.cancel("A", "r", "c", "x", "nobody", "s", "t"), "ready", 1,
     lambda c: _released(c).set("cancelled", "x", 1).front("x").wake(), "among others")
case("cancel", (*UNHELD, "claimed by another"), lambda m: m.cancel("A", "x"), "same", 0)
case("cancel", UNHELD, lambda m: m.cancel("", "x", delay_ms=9, limit=1), "same", 0,
     about="as anybody")
case("recover", "claimed", lambda m: m.recover("A", keep=("c", "x")), "claimed", 0, about="kept")
case("recover", (*UNHELD, "claimed by another"), lambda m: m.recover("A"), "same", 0)
case("recover", CLAIMED, lambda m: m.recover("A", "cancel", before_ms=1), "same", 0,
     about="claimed since")
case("recover", "claimed", lambda m: m.recover("A", before_ms=m.clock_ms()), "ready", 1,
     lambda c: _released(c).set("cancelled", "x", 0).front("x").wake(), "claimed before")


def _set_aside(c: Change) -> Change:
    c.parts.get("cancelled", {}).pop("x", None)
    return _lasting(c).drop("x", "published").stall("x", "why")


case("stall", seeds_in("absent"), lambda m: m.stall("x", "why"), "NOTFOUND")
case("stall", seeds_in("ready"), lambda m: m.stall("x", "why"), "stalled", "x",
     lambda c: _set_aside(c).haunt("x"))
case("stall", seeds_in("scheduled"), lambda m: m.stall("x", "why"), "stalled", "x",
     lambda c: _set_aside(c).drop("x", "scheduled"))
case("stall", seeds_in("claimed"), lambda m: m.stall("x", "why"), "stalled", "x",
     lambda c: _released(_set_aside(c)))
case("stall", seeds_in("stalled"), lambda m: m.stall("x", "why"), "same", "x")

case("stall", CLAIMED, lambda m: m.stall("x", "why", "A"), "stalled", "x",
     lambda c: _released(_set_aside(c)), "as A")
case("stall", (*seeds_in("ready", "scheduled", "stalled"), "claimed by another"),
     lambda m: m.stall("x", "why", "A"), "NOTCLAIMED", about="as A")
case("stall", seeds_in("absent"), lambda m: m.stall("x", "why", "A"), "NOTFOUND", about="as A")

case("retry", seeds_in("absent", "ready", "scheduled", "claimed"), lambda m: m.retry("x"),
     "NOTSTALLED")
for seed in seeds_in("stalled"):
    case("retry", seed, lambda m: m.retry("x"), "ready", "x",
         lambda c, n=4 if "level 4" in seed else 0: (
             c.drop("x", "stalled", "reasons").set("published", "x", c.now)
             .back("x", level=n).wake()))

def _retracted(c: Change) -> Change:
    c.set("published", "x", 0)  # a stalled job has none, and gone() wants one
    return c.gone("x").drop("x", "stalled", "reasons")


for waiting in (False, True):
    about = "waiting" if waiting else ""
    case("retract", seeds_in("absent"), lambda m, w=waiting: m.retract("x", w), "NOTFOUND",
         about=about)
    case("retract", seeds_in("ready"), lambda m, w=waiting: m.retract("x", w), "absent", "x",
         lambda c: c.gone("x").haunt("x"), about)
    case("retract", seeds_in("scheduled"), lambda m, w=waiting: m.retract("x", w), "absent", "x",
         lambda c: c.gone("x").drop("x", "scheduled"), about)
    case("retract", seeds_in("stalled"), lambda m, w=waiting: m.retract("x", w), "absent", "x",
         _retracted, about)
case("retract", seeds_in("claimed"), lambda m: m.retract("x"), "absent", "x",
     lambda c: _released(c.gone("x")))
case("retract", seeds_in("claimed"), lambda m: m.retract("x", waiting=True), "same", None,
     about="waiting")

case("relist", seeds_in("absent", "scheduled", "claimed", "stalled"), lambda m: m.relist("x"),
     "same", 0)
case("census", tuple(SEEDS), lambda m: m.run("job/census")[1] >= 0, "same", True)
case("scan", tuple(SEEDS), lambda m: m.run("job/scan", 0)[0], "same", "0")
for seed in SEEDS:
    state = SEEDS[seed][0]
    case("lookup", seed, lambda m: m.lookup("x", "nobody"), "same",
         [] if state == "absent" else [("x", state, ITEM)])
for state, other in (("ready", "r"), ("scheduled", "s"), ("claimed", "c"), ("stalled", "t")):
    for seed in SEEDS:
        case("page", seed, lambda m, s=state: sorted(m.page(s)), "same",
             [other, "x"] if SEEDS[seed][0] == state else [other], about=state)
case("touch", tuple(SEEDS), lambda m: m.touch(), "same", 0)
case("stats", tuple(SEEDS), lambda m: m.stats()[7], "same", 1)

case("pause", tuple(SEEDS), lambda m: m.pause(), "same", 1,
     lambda c: c.set("config", "paused", "1"))
case("pause", tuple(SEEDS), lambda m: m.pause(), "same", 0, about="again", paused="1")
case("resume", tuple(SEEDS), lambda m: m.resume(), "same", 1,
     lambda c: c.drop("paused", "config").wake(), paused="1")
case("resume", tuple(SEEDS), lambda m: m.resume(), "same", 0, lambda c: c.wake(), "not paused")

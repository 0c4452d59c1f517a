"""job/claim has two ways through it and does what job/finish does on its way: all are as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.lua.cases import SEEDS, bystanders
from tests.lua.machine import HOUR_MS, TIMES, Claimed, Machine
from tests.lua.pictures import Picture, check, is_mark, states_of, tidy
from tests.servers import RedisServer

#: What else is in the queue: put there before `x`, and behind it.
SURROUNDINGS: dict[str, tuple[Callable[[Machine], Any], Callable[[Machine], Any]]] = {
    "alone": (lambda m: None, lambda m: None),
    "before two others": (lambda m: None, lambda m: (m.put("y"), m.put("z"))),
    "among all sorts": (bystanders, lambda m: m.put("y")),
}
#: Rules of the queue.
RULES: dict[str, dict[str, Any]] = {
    "no rules": {"type": "job"},
    "paused": {"paused": 1},
    "limited": {"rate_interval": 1000, "rate_burst": 2},
}


def without_times(picture: Picture) -> Picture:
    """Two queues are never touched at the same millisecond."""
    found = {part: sorted(value) if part in TIMES else value for part, value in picture.items()}
    found["owners"] = {
        id: "late" if is_mark(owner) else owner for id, owner in picture.get("owners", {}).items()
    }
    return found


@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("surroundings", SURROUNDINGS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_claim_that_finishes_is_a_finish_and_a_claim(
    redis_server: RedisServer, redis_db: str, seed: str, surroundings: str, rules: str
) -> None:
    """Of jobs in every state, beside the owner's own and with others, named twice too."""
    for finished in (("x",), ("x", "mine", "x", "nobody")):
        for owner, count, order in (("A", 1, ""), ("B", 3, "highest"), ("A", 0, "")):
            pair = []
            for at_once in (False, True):
                m = Machine(redis_server)
                m.put("mine")
                m.claim(owner)
                first, last = SURROUNDINGS[surroundings]
                first(m)
                SEEDS[seed][1](m)
                last(m)
                m.configure(**RULES[rules])
                if at_once:
                    reply = m.claim(owner, count, order, finished)
                else:
                    m.finish(owner, *finished)
                    reply = m.claim(owner, count, order)
                picture = m.picture()
                check(picture, m.stats())
                pair.append((reply.more, reply.jobs, without_times(picture)))
                m.close()
            assert pair[0] == pair[1]


def scripted(m: Machine) -> list[Claimed]:
    """Claims of a plain queue in every way: some, too many, none, with finished ones."""
    for n in range(7):
        m.put(f"j{n}")
    m.client.hdel(m.keys.items, "j3")  # a foreign client has left its id behind
    m.client.zrem(m.keys.published, "j3")
    return [
        m.claim("A", 2),
        m.claim("A", 0),
        m.claim("B", 2, "highest", ("j0",)),
        m.claim("A", 1, "", ("j0", "j1", "j2")),
        m.claim("B", 9, "", ("j2",)),
        m.claim("B", 9, "", ("j4", "j5", "j6")),
        m.claim("B", 9),
    ]


def test_the_short_way_is_as_the_long_one(redis_server: RedisServer, redis_db: str) -> None:
    """A job that is due in a thousand hours sends every claim the long way."""
    plain, crowded = Machine(redis_server), Machine(redis_server)
    crowded.put("later", delay_ms=1000 * HOUR_MS)
    replies = [[(reply.more, reply.jobs) for reply in scripted(m)] for m in (plain, crowded)]
    assert replies[0] == replies[1]
    assert [len(jobs) for _, jobs in replies[0]] == [2, 0, 2, 1, 1, 0, 0]
    pictures = [without_times(m.picture()) for m in (plain, crowded)]
    del pictures[1]["items"]["later"]
    assert pictures[1].pop("scheduled") == ["later"]
    pictures[1]["published"].remove("later")
    pictures[1]["publishes"] -= 1
    assert tidy(pictures[0]) == tidy(pictures[1])
    assert states_of(plain.picture(), "j4") == ["absent"]
    for m in (plain, crowded):
        m.close()

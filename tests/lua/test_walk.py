"""Random walks through the job machine, every step compared with a model in Python.

``PHONON_TEST_WALK`` chooses how long: ``ci`` (the same walks every time; on fakeredis by default
the few of ``fake``) or ``long`` (about ten minutes of new ones).
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from phonon_kombu.errors import JobError
from tests.lua.machine import HOUR_MS, Machine
from tests.lua.model import Model
from tests.lua.pictures import LISTS, Picture, check, live
from tests.servers import server_name

COMMON: dict[str, Any] = {
    "deadline": None,
    "database": None,
    "print_blob": True,
    "suppress_health_check": list(HealthCheck),
}
PROFILES = {
    "ci": settings(max_examples=80, stateful_step_count=40, derandomize=True, **COMMON),
    "fake": settings(max_examples=12, stateful_step_count=40, derandomize=True, **COMMON),
    "long": settings(max_examples=2500, stateful_step_count=80, **COMMON),
}
DEFAULT = "fake" if server_name() == "fakeredis" else "ci"
PROFILE = os.environ.get("PHONON_TEST_WALK") or DEFAULT

IDS = st.sampled_from("abcdefghij")
SOME_IDS = st.lists(IDS, min_size=1, max_size=5).map(tuple)
OWNERS = st.sampled_from(("A", "B"))
ANY_OWNER = st.sampled_from(("A", "B", ""))
LEVELS = st.sampled_from((0, 0, 0, 1, 5, 9))
#: Delays end at full hours, lifetimes at half ones, and time passes by quarters: nothing falls
#: due within the few milliseconds that a test takes.
DELAYS_MS = st.sampled_from((0, 0, 0, HOUR_MS, 3 * HOUR_MS))
TTLS_MS = st.sampled_from((0, 0, 0, HOUR_MS // 2, 5 * HOUR_MS // 2))


class Walk(RuleBasedStateMachine):
    """One queue and its model; each rule does the same to both."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        machine.client.flushdb()
        self.m = machine
        self.model = Model()
        self.seen: Picture = {}

    def compare(self) -> None:
        """The server's keys are as the model says, and every invariant holds."""
        self.seen = self.m.picture()
        check(self.seen, self.m.stats())
        actual = live(self.seen)
        actual.pop("config", None)
        actual.pop("unique", None)
        actual.pop("unique_ends", None)
        assert actual == self.model.picture()
        ready = any(self.model.lists) and not self.model.paused
        assert not ready or "wake" in self.seen, "jobs are ready and nobody is woken"
        self.model.adopt(self.seen)

    def haunted(self, id: str) -> int | None:
        """The level in which old entries of `id` still stand; None if there are none."""
        if id not in self.seen.get("ghosts", {}):
            return None
        return next(n for n, name in enumerate(LISTS) if id in self.seen.get(name, ()))

    @rule(id=IDS, item=st.sampled_from("IJ"), other_id=st.sampled_from(("", "", "y", "z")),
          level=LEVELS, front=st.booleans(), delay_ms=DELAYS_MS, ttl_ms=TTLS_MS,
          dedup_id=st.sampled_from(("", "", "", "u", "v")), dedup_ttl_ms=TTLS_MS)  # fmt: skip
    def put(
        self, id: str, item: str, other_id: str, level: int, front: bool, delay_ms: int,
        ttl_ms: int, dedup_id: str, dedup_ttl_ms: int,
    ) -> None:  # fmt: skip
        # An id that is put again while an old entry of it stands takes the old entry's place
        # where it comes to it first; the walk keeps to where the two agree.
        old = self.haunted(id)
        if old is not None:
            level, front = old, False
        if self.haunted(other_id) not in (None, level):
            other_id = ""
        elif self.haunted(other_id) is not None:
            front = False
        plain = not (level or front or delay_ms or ttl_ms or dedup_id or self.model.max_length)
        reply: Any
        with self.m.now() as now:
            try:
                if plain:
                    reply = self.m.append(id, item, other_id)
                else:
                    reply = self.m.put(
                        id, item, other_id, level, front, delay_ms or "", ttl_ms or "",
                        dedup_id=dedup_id, dedup_ttl_ms=dedup_ttl_ms or "",
                    )  # fmt: skip
            except JobError as error:
                reply = type(error).__name__.upper()
        assert reply == self.model.put(
            id, item, other_id, level, front, delay_ms, ttl_ms, now(), dedup_id, dedup_ttl_ms
        )
        self.compare()

    @rule(owner=OWNERS, count=st.integers(0, 5), highest=st.booleans(),
          finished=st.one_of(st.just(()), SOME_IDS))  # fmt: skip
    def claim(self, owner: str, count: int, highest: bool, finished: tuple[str, ...]) -> None:
        order = "highest" if highest else ""
        jobs = []
        with self.m.now() as now:
            reply = self.m.claim(owner, count, order, finished)
            jobs += reply.jobs
            # A claim does not go on for ever where many ghosts stand.
            while reply.more and len(jobs) < count:
                reply = self.m.claim(owner, count - len(jobs), order)
                jobs += reply.jobs
        self.model.finish(owner, finished)
        assert jobs == self.model.claim(owner, count, highest, now())
        due = [job.due for job in self.model.in_state("scheduled")]
        if self.model.paused:
            assert (reply.more, reply.due_in_ms) == (False, -1)
        elif not reply.more:
            assert not any(self.model.lists)
            assert (now() + reply.due_in_ms == min(due)) if due else reply.due_in_ms == -1
        else:
            assert reply.due_in_ms == -1
        self.compare()

    @rule(owner=ANY_OWNER, ids=SOME_IDS)
    def finish(self, owner: str, ids: tuple[str, ...]) -> None:
        assert self.m.finish(owner, *ids) == self.model.finish(owner, ids)
        self.compare()

    @rule(owner=ANY_OWNER, ids=SOME_IDS, mode=st.sampled_from(("cancel", "restore", "release")),
          delay_ms=DELAYS_MS, limit=st.sampled_from((0, 1, 2, 3)))  # fmt: skip
    def cancel(
        self, owner: str, ids: tuple[str, ...], mode: str, delay_ms: int, limit: int
    ) -> None:
        with self.m.now() as now:
            reply = self.m.cancel(
                owner, *ids, mode=mode, delay_ms=delay_ms or "", limit=limit or ""
            )
        assert reply == self.model.cancel(owner, ids, mode, delay_ms, limit, now())
        self.compare()

    @rule(owner=ANY_OWNER, ids=SOME_IDS)
    def reject(self, owner: str, ids: tuple[str, ...]) -> None:
        with self.m.now() as now:
            reply = self.m.reject(owner, *ids)
        assert reply == self.model.reject(owner, ids, now())
        self.compare()

    @rule(max_length=st.sampled_from((0, 0, 2, 4)), lettered=st.booleans())
    def set_rules(self, max_length: int, lettered: bool) -> None:
        self.model.max_length, self.model.lettered = max_length, lettered
        fields = {"max_length": max_length, "rules": 1} if max_length else {}
        if lettered:
            fields["dead_exchange"] = ""
        self.m.client.hdel(self.m.keys.config, "max_length", "rules", "dead_exchange")
        if fields:
            self.m.configure(**fields)
        self.compare()

    @rule(id=IDS)
    def stall(self, id: str) -> None:
        assert self._word(self.m.stall, id, "why") == self.model.stall(id, "why")
        self.compare()

    @rule(id=IDS)
    def retry(self, id: str) -> None:
        with self.m.now() as now:
            reply = self._word(self.m.retry, id)
        assert reply == self.model.retry(id, now())
        self.compare()

    @rule(id=IDS)
    def retract(self, id: str) -> None:
        assert self._word(self.m.retract, id) == self.model.retract(id)
        self.compare()

    @rule(id=IDS, owner=ANY_OWNER)
    def resolve(self, id: str, owner: str) -> None:
        assert self._word(self.m.resolve, id, owner) == self.model.resolve(id, owner)
        self.compare()

    @rule(owner=OWNERS, mode=st.sampled_from(("cancel", "cancel", "restore")), keep=SOME_IDS,
          limit=st.sampled_from((0, 0, 4)))  # fmt: skip
    def recover(self, owner: str, mode: str, keep: tuple[str, ...], limit: int) -> None:
        reply = self.m.recover(owner, mode, keep, limit or "")
        picture = live(self.m.picture())
        order = [id for name in LISTS for id in reversed(picture.get(name, ()))]
        assert reply == self.model.recover(owner, mode, keep, limit, order)
        self.compare()

    @rule(limit=st.integers(0, 6))
    def purge(self, limit: int) -> None:
        gone, more = self.m.purge(limit)
        expected, waiting = self.model.purge(limit)
        # It may stop early where ghosts stand, and says then that more wait.
        assert gone == expected
        assert more or not waiting
        self.compare()

    @rule(limit=st.integers(1, 6))
    def maintain(self, limit: int) -> None:
        with self.m.now() as now:
            reply = self.m.maintain(limit)
        assert reply == self.model.maintain(limit, now())
        self.compare()

    @rule(hours=st.sampled_from((0, 2)))
    def set_claim_timeout(self, hours: int) -> None:
        self.model.claim_timeout_ms = hours * HOUR_MS
        if hours:
            self.m.configure(claim_timeout=hours * HOUR_MS)
        else:
            self.m.client.hdel(self.m.keys.config, "claim_timeout")
        self.compare()

    @rule(paused=st.booleans())
    def pause(self, paused: bool) -> None:
        if self.model.paused or self.model.claim_timeout_ms or self.model.jobs:
            reply = self.m.pause() if paused else self.m.resume()
            assert reply == (self.model.paused != paused)
            self.model.paused = paused
        self.compare()

    @rule(quarters=st.sampled_from((1, 3, 9)))
    def pass_time(self, quarters: int) -> None:
        self.m.pass_time(quarters * HOUR_MS // 4)
        self.model.adopt(self.m.picture())
        for job in self.model.jobs.values():
            job.late = ""  # it looks like another job, put at another time
        self.compare()

    @staticmethod
    def _word(act: Any, *args: str) -> Any:
        try:
            return act(*args)
        except JobError as error:
            return type(error).__name__.upper()


@pytest.mark.timeout(0 if PROFILE == "long" else 120)
def test_random_walks(machine: Machine) -> None:
    """Whatever happens in whatever order, the server does what the model does."""
    run_state_machine_as_test(lambda: Walk(machine), settings=PROFILES[PROFILE])

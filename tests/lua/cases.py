"""The grid's cases: a seed puts job `x` into a state, one operation, what must have changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from phonon_kombu.errors import REFUSALS, JobError
from tests.lua.machine import HOUR_MS, Machine
from tests.lua.pictures import Change, check, states_of, tidy

Seed = Callable[[Machine], Any]


def claim_x(m: Machine, owner: str = "A") -> None:
    """Claim `x`, which is the next by the order "lowest first"."""
    assert m.claim(owner).ids == ["x"]


def _put_aged(m: Machine, hours: float, **options: Any) -> None:
    m.put("x", **options)
    m.pass_time(int(hours * HOUR_MS), "x")


def _claimed(m: Machine, owner: str = "A", **options: Any) -> None:
    m.put("x", **options)
    claim_x(m, owner)


def _redelivered(m: Machine, mode: str) -> None:
    _claimed(m)
    m.cancel("A", "x", mode=mode)


def _taken_from_a(m: Machine) -> None:
    _claimed(m)
    m.recover("A", "cancel")


def _haunted(m: Machine) -> None:
    m.put("x")
    m.retract("x")
    m.put("x")


def _failed(m: Machine, times: int) -> None:
    m.put("x")
    for _ in range(times):
        claim_x(m)
        m.cancel("A", "x")
    claim_x(m)


def _claimed_aged(m: Machine, hours: float, **options: Any) -> None:
    _claimed(m, **options)
    m.pass_time(int(hours * HOUR_MS), "x")


def _stalled(m: Machine, *steps: Callable[[], Any], **options: Any) -> None:
    m.put("x", **options)
    for step in steps:
        step()
    m.stall("x", "a reason")


#: Ways into a state, through the scripts only: name -> (state, how).
SEEDS: dict[str, tuple[str, Seed]] = {
    "absent": ("absent", lambda m: None),
    "retracted": ("absent", lambda m: (m.put("x"), m.retract("x"))),
    "finished": ("absent", lambda m: (_claimed(m), m.finish("A", "x"))),
    "ready": ("ready", lambda m: m.put("x")),
    "ready, level 4": ("ready", lambda m: m.put("x", level=4)),
    "ready, expires": ("ready", lambda m: m.put("x", ttl_ms=HOUR_MS)),
    "ready, expired": ("ready", lambda m: _put_aged(m, 2, ttl_ms=HOUR_MS)),
    "ready, redelivered": ("ready", lambda m: _redelivered(m, "restore")),
    "ready, failed": ("ready", lambda m: _redelivered(m, "cancel")),
    "ready, released": ("ready", lambda m: _redelivered(m, "release")),
    "ready, taken from A": ("ready", _taken_from_a),
    "ready, with a ghost": ("ready", _haunted),
    "ready, retried": ("ready", lambda m: (_stalled(m), m.retry("x"))),
    "scheduled": ("scheduled", lambda m: m.put("x", delay_ms=HOUR_MS)),
    "scheduled, level 4": ("scheduled", lambda m: m.put("x", delay_ms=HOUR_MS, level=4)),
    "scheduled, due": ("scheduled", lambda m: _put_aged(m, 2, delay_ms=HOUR_MS)),
    "scheduled, expired": (
        "scheduled", lambda m: _put_aged(m, 2, delay_ms=9 * HOUR_MS, ttl_ms=HOUR_MS),
    ),
    "scheduled, due, expired": (
        "scheduled", lambda m: _put_aged(m, 2, delay_ms=HOUR_MS, ttl_ms=HOUR_MS),
    ),
    "claimed": ("claimed", _claimed),
    "claimed, level 4": ("claimed", lambda m: _claimed(m, level=4, ttl_ms=HOUR_MS)),
    "claimed by another": ("claimed", lambda m: _claimed(m, "B")),
    "claimed, failed twice": ("claimed", lambda m: _failed(m, 2)),
    "claimed, expired": ("claimed", lambda m: _claimed_aged(m, 2, ttl_ms=HOUR_MS)),
    "claimed long ago": ("claimed", lambda m: _claimed_aged(m, 100)),
    "stalled": ("stalled", _stalled),
    "stalled, level 4": ("stalled", lambda m: _stalled(m, level=4, ttl_ms=HOUR_MS)),
    "stalled while scheduled": ("stalled", lambda m: _stalled(m, delay_ms=HOUR_MS)),
    "stalled while claimed": ("stalled", lambda m: _stalled(m, lambda: claim_x(m))),
    "stalled, failed too often": (
        "stalled", lambda m: (_claimed(m), m.cancel("A", "x", limit=1)),
    ),
}  # fmt: skip


def bystanders(m: Machine) -> None:
    """A job in each state, of which no operation on `x` may change a thing."""
    m.configure(type="job")
    m.put("c", level=1)
    for _ in range(2):
        assert m.claim("C").ids == ["c"]
        m.cancel("C", "c")
    assert m.claim("C").ids == ["c"]
    m.put("r", level=5, ttl_ms=1000 * HOUR_MS)
    m.put("s", level=6, delay_ms=1000 * HOUR_MS)
    m.put("t", level=9)
    m.stall("t", "out of order")


@dataclass(frozen=True)
class Case:
    """One move in the grid: `to` is the state of `x` after it, or the word of the refusal."""

    operation: str
    seed: str
    act: Callable[[Machine], Any]
    to: str
    reply: Any
    changes: Callable[[Change], Any]
    about: str
    #: What the queue's config has beside its type.
    config: dict[str, Any]

    @property
    def name(self) -> str:
        """What pytest calls it."""
        about = f" {self.about}" if self.about else ""
        return f"{self.operation}{about} [{self.seed}] {self.to}"


CASES: list[Case] = []


def _nothing(change: Change) -> None:
    """The picture stays."""


def case(
    operation: str,
    seeds: str | tuple[str, ...],
    act: Callable[[Machine], Any],
    to: str,
    reply: Any = None,
    changes: Callable[[Change], Any] = _nothing,
    about: str = "",
    **config: Any,
) -> None:
    """Add a case for each of the seeds; `to` "same" is the state that the seed makes."""
    for seed in (seeds,) if isinstance(seeds, str) else seeds:
        state = SEEDS[seed][0] if to == "same" else to
        CASES.append(Case(operation, seed, act, state, reply, changes, about, config))


def seeds_in(*states: str, but: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Names of all seeds that make one of these states."""
    return tuple(n for n, (state, _) in SEEDS.items() if state in states and n not in but)


def play(m: Machine, case: Case, fenced: bool = False) -> None:
    """Seed, act once, compare the whole picture."""
    bystanders(m)
    state, seed = SEEDS[case.seed]
    seed(m)
    if case.config:
        m.configure(**case.config)
    m.client.delete(m.keys.wake)
    before = m.picture()
    assert states_of(before, "x") == [state]
    with m.now() as now:
        if fenced:
            with m.fence():
                reply, refusal = _outcome(m, case)
        else:
            reply, refusal = _outcome(m, case)
    after = m.picture()
    expected = Change(before, now())
    case.changes(expected)
    assert tidy(after) == tidy(expected.picture())
    check(after, m.stats())
    if case.to in REFUSALS:
        assert refusal is REFUSALS[case.to], f"{case.to} expected, got {reply or refusal!r}"
        assert after == before
    else:
        assert refusal is None, refusal
        assert states_of(after, "x") == [case.to]
        assert reply == case.reply


def _outcome(m: Machine, case: Case) -> tuple[Any, type[JobError] | None]:
    try:
        return case.act(m), None
    except JobError as error:
        return None, type(error)

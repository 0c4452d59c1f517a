"""The rows of the table: what is shown, from which measurements, and what it should reach."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.measure import Figures

Results = dict[str, Figures]


@dataclass(frozen=True)
class Target:
    """A bound for the ratio ours / stock."""

    bound: float
    at_least: bool

    def reached(self, ratio: float) -> bool:
        return ratio >= self.bound if self.at_least else ratio <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:g}"


@dataclass(frozen=True)
class Row:
    """One line of the table; `value` computes it from one alternation's results of one scheme."""

    group: str
    title: str
    unit: str
    needs: tuple[str, ...]
    value: Callable[[Results], float]
    target: Target | None = None


GROUPS = ("consume", "publish", "tasks", "cpu", "memory", "latency", "idle", "trips", "chords")
_LOOPS = {"drain": "drain_events", "hub": "event loop"}
_POOLS = {"solo": "solo", "threads": "threads -c 8", "prefork": "prefork -c 2"}


def _plain(group: str, title: str, unit: str, source: str, key: str, target: Target | None) -> Row:
    return Row(group, title, unit, (source,), lambda results: results[source][key], target)


def _at_least(bound: float | None) -> Target | None:
    return None if bound is None else Target(bound, at_least=True)


def _at_most(bound: float | None) -> Target | None:
    return None if bound is None else Target(bound, at_least=False)


def _consume() -> list[Row]:
    return [
        _plain(
            "consume",
            f"consume + ack, prefetch {prefetch}, {words}",
            "msgs/s",
            f"consume-{loop}-{prefetch}",
            "rate",
            _at_least(bound),
        )
        for loop, words in _LOOPS.items()
        for prefetch, bound in ((64, 25), (0, 25), (8, 12), (1, 4))
    ]


def _publish() -> list[Row]:
    return [
        _plain("publish", title, "msgs/s", load, "rate", _at_least(bound))
        for title, load, bound in (
            ("publish, one by one", "publish", 1.6),
            ("apply_async, ignore_result", "apply_async", 1.4),
            ("publish in Producer.batch(100)", "batch", 1.0),
        )
    ]


def _tasks() -> list[Row]:
    rows = []
    for key, title, unit, bounds in (
        ("rate", "Celery tasks", "tasks/s", {"solo": 6, "threads": 6, "prefork": 3}),
        ("worker_cpu_us", "worker CPU a task", "us", {}),
    ):
        for pool, words in _POOLS.items():
            for acks in ("early", "late"):
                rows.append(
                    _plain(
                        "tasks",
                        f"{title}, {words}, acks {acks}",
                        unit,
                        f"tasks-{pool}-{acks}",
                        key,
                        _at_least(bounds.get(pool)),
                    )
                )
    return rows


def _cpu() -> list[Row]:
    def both(results: Results) -> float:
        publish, consume = results["publish"], results["consume-drain-64"]
        return float(publish["redis_cpu_us"] + consume["redis_cpu_us"])

    return [
        Row(
            "cpu",
            "Redis CPU a message, publish + consume + ack",
            "us",
            ("publish", "consume-drain-64"),
            both,
            _at_most(0.4),
        ),
        _plain("cpu", "... publish", "us", "publish", "redis_cpu_us", None),
        _plain("cpu", "... consume + ack", "us", "consume-drain-64", "redis_cpu_us", None),
    ]


def _latency() -> list[Row]:
    return [
        _plain(
            "latency",
            f"latency to an idle consumer, {words}, {name}",
            "us",
            f"latency-{loop}",
            name,
            _at_most(bound),
        )
        for loop, words in _LOOPS.items()
        for name, bound in (("p50", 0.9), ("p95", None), ("p99", 1.0))
    ]


def _idle() -> list[Row]:
    rows = []
    for who, words, bound in (
        ("worker", "idle worker (prefork -c 2)", 1.0),
        ("drain", "idle consumer, drain_events", None),
        ("hub", "idle consumer, event loop", None),
    ):
        for key, name, unit in (("commands", "commands", "1/s"), ("cpu_ms", "CPU", "ms/s")):
            title = f"{words}: {name}"
            rows.append(_plain("idle", title, unit, "idle", f"{who}_{key}", _at_most(bound)))
    return rows


def _trips() -> list[Row]:
    return [
        _plain("trips", f"{name} a message: {words}", "", source, key, None)
        for words, source in (
            ("publish", "publish"),
            ("apply_async", "apply_async"),
            ("publish in a batch", "batch"),
            ("consume + ack, prefetch 64", "consume-drain-64"),
            ("consume + ack, prefetch 1", "consume-drain-1"),
            ("task worked off, solo", "tasks-solo-early"),
        )
        for key, name in (("commands", "Redis commands"), ("reads", "socket reads"))
    ]


def _chords() -> list[Row]:
    rows = []
    for size, body, get in ((1000, 0.65, 0.4), (5000, 0.6, 0.25)):
        source = f"chord-{size}"
        rows += [
            _plain("chords", f"chord of {size}: until the body has run", "s", source,
                   "body_seconds", _at_most(body)),
            _plain("chords", f"chord of {size}: until get() returns", "s", source,
                   "seconds", _at_most(get)),
            _plain("chords", f"chord of {size}: socket reads a part", "", source, "reads", None),
            _plain("chords", f"chord of {size}: Redis commands a part", "", source, "commands",
                   None),
            _plain("chords", f"chord of {size}: Redis CPU a part", "us", source, "redis_cpu_us",
                   _at_most(0.5)),
        ]  # fmt: skip
    rows += [
        _plain("chords", "200 chords of 5 at once", "s", "chords-200", "seconds", _at_most(0.6)),
        _plain("chords", "chord of 1000 x 10 KB: Redis peak", "bytes", "chord-memory-blob",
               "peak_bytes", _at_most(0.5)),
        _plain("chords", "... aggregated by Sum (stock: plain)", "bytes",
               "chord-memory-blob_size", "peak_bytes", _at_most(0.01)),
        _plain("chords", "apply_async with results, dropped at once", "calls/s", "apply_and_drop",
               "rate", _at_least(1.8)),
        _plain("chords", "... held", "calls/s", "apply_with_results", "rate", _at_least(1.8)),
        _plain("chords", "get() of a task that is finishing, p50", "us", "get_latency",
               "finishing", _at_most(1.0)),
        _plain("chords", "get() of a finished task, p50", "us", "get_latency", "finished",
               _at_most(1.0)),
    ]  # fmt: skip
    for pool, bound in (("solo", 3.5), ("prefork", 2.2)):
        for acks in ("early", "late"):
            source, title = f"results-{pool}-{acks}", f"{_POOLS[pool]}, acks {acks}"
            rows += [
                _plain("chords", f"tasks with results, {title}", "tasks/s", source, "rate",
                       _at_least(bound)),
                _plain("chords", "... socket reads a task", "", source, "reads", None),
            ]  # fmt: skip
    return rows


ROWS: tuple[Row, ...] = (
    *_consume(),
    *_publish(),
    *_tasks(),
    *_cpu(),
    _plain("memory", "Redis memory a queued message", "bytes", "memory", "bytes", _at_most(1.1)),
    _plain("memory", "... of mixed sizes", "bytes", "memory", "mixed_bytes", None),
    *_latency(),
    *_idle(),
    *_trips(),
    *_chords(),
)

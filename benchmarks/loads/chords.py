"""Chords and results, as a client of Celery sees them. A worker runs beside it."""

from __future__ import annotations

import gc
import os
import time
from typing import Any

from benchmarks.client import Talk

TIMEOUT_SECONDS = 170


def _app(spec: dict[str, Any]) -> Any:
    os.environ["PHONON_BENCH_BROKER"] = spec["url"]
    os.environ["PHONON_BENCH_BACKEND"] = spec["backend"]
    from benchmarks import chordapp

    chordapp.part.delay(0).get(timeout=60)  # the worker is there, connections are made
    gc.collect()
    gc.freeze()
    return chordapp


def chord(talk: Talk, spec: dict[str, Any]) -> None:
    """`count` chords of `size` parts called `task`, one after another; wait for all bodies."""
    tasks = _app(spec)
    from celery import chord as celery_chord

    header = getattr(tasks, spec["task"])
    if spec.get("aggregated"):
        from phonon_kombu import aggregate
        from phonon_kombu.phonon.fields import Sum
    talk.ready()
    began, cpu = time.perf_counter(), time.process_time()
    results = []
    for _ in range(spec["count"]):
        parts = (header.s(number) for number in range(spec["size"]))
        if spec.get("aggregated"):
            results.append(aggregate(parts, {"n": Sum()})(tasks.total.s()))
        else:
            results.append(celery_chord(parts)(tasks.total.s()))
    applied = time.perf_counter()
    for result in results:
        result.get(timeout=TIMEOUT_SECONDS)
    done = time.perf_counter()
    talk.result(
        seconds=done - began,
        apply_seconds=applied - began,
        body_seconds=_ended(tasks.app, results[-1].id) - _wall(began),
        cpu_seconds=time.process_time() - cpu,
    )
    talk.end()


def _wall(began: float) -> float:
    """The time of day of a moment of the performance counter."""
    return time.time() - (time.perf_counter() - began)


def _ended(app: Any, task_id: str) -> float:
    """When a task's result was stored, by the worker's clock, which is ours."""
    from datetime import datetime

    done = app.AsyncResult(task_id).date_done
    if isinstance(done, str):
        done = datetime.fromisoformat(done)
    return float(done.timestamp())


def apply_with_results(talk: Talk, spec: dict[str, Any]) -> None:
    """``apply_async`` of a task whose result is kept; no worker needs to run.

    With `keep` the client holds on to each AsyncResult, else it lets go at once, and stock then
    takes back its subscription.
    """
    os.environ["PHONON_BENCH_BROKER"] = spec["url"]
    os.environ["PHONON_BENCH_BACKEND"] = spec["backend"]
    from benchmarks import chordapp

    for number in range(100):
        chordapp.part.delay(number)
    talk.ready()
    began, cpu = time.perf_counter(), time.process_time()
    kept = []
    for number in range(spec["count"]):
        result = chordapp.part.delay(number)
        if spec["keep"]:
            kept.append(result)
    seconds = time.perf_counter() - began
    talk.result(seconds=seconds, cpu_seconds=time.process_time() - cpu)
    talk.end(kept=len(kept))


def get_latency(talk: Talk, spec: dict[str, Any]) -> None:
    """``AsyncResult.get`` right after sending, and when the task has been finished for a while."""
    tasks = _app(spec)
    talk.ready()
    figures = {}
    for name, pause_seconds in (("finishing", 0.0), ("finished", 0.02)):
        samples = []
        for number in range(spec["count"]):
            result = tasks.part.delay(number)
            time.sleep(pause_seconds)
            began = time.perf_counter()
            result.get(timeout=TIMEOUT_SECONDS)
            samples.append(time.perf_counter() - began)
        samples.sort()
        figures[name] = samples[len(samples) // 2] * 1e6
    talk.result(**figures)
    talk.end()

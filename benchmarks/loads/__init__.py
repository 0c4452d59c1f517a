"""What a client process does: each load is a function of the conversation and its specification."""

from __future__ import annotations

from benchmarks.loads.chords import apply_with_results, chord, get_latency
from benchmarks.loads.consume import consume, idle, latency
from benchmarks.loads.publish import apply_async, batch, fill, publish, publish_with_gaps

LOADS = {
    "apply_async": apply_async,
    "apply_with_results": apply_with_results,
    "batch": batch,
    "chord": chord,
    "consume": consume,
    "fill": fill,
    "get_latency": get_latency,
    "idle": idle,
    "latency": latency,
    "publish": publish,
    "publish_with_gaps": publish_with_gaps,
}

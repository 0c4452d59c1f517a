"""``python -m tests.upstream``: see ``--help``."""

from __future__ import annotations

import argparse
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.servers import server_binaries, server_name
from tests.upstream.compare import Verdict, compare, counts, table
from tests.upstream.exclusions import KNOWN_FLAKY, excluded_tests, reason
from tests.upstream.running import (
    FAILED,
    FLAKY,
    LEAST_LIMIT_SECONDS,
    PASSED,
    PATIENCE,
    PLUGIN_NAME,
    SKIPPED,
    SUITES,
    UNCOLLECTABLE,
    Outcome,
    Outcomes,
    Piece,
    Runner,
    end_all_runs,
    load,
    save,
)
from tests.upstream.sdists import UpstreamUnavailable, default_cache, fetch, unpack

STOCK, OURS = "redis", "phonon"


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.upstream",
        description="Run kombu's and celery's t/integration on redis:// and on phonon:// and "
        "compare: what stock passes, ours must pass.",
        epilog="Exit status: 0 good; 1 ours fails something that stock passes, or an exclusion "
        "is stale; 2 the suites could not be run.",
    )
    parser.add_argument("--suite", choices=[*SUITES, "all"], default="all")
    parser.add_argument(
        "--scheme", choices=[STOCK, OURS, "both"], default="both",
        help="with phonon alone, stock's results are those saved by an earlier full run; "
        "if there are none, every test counts as one that stock passes",
    )  # fmt: skip
    parser.add_argument(
        "--backend", choices=[STOCK, OURS], default=STOCK,
        help="scheme of celery's result backend in the run on phonon (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--broker", choices=[STOCK, OURS], default=OURS,
        help="scheme of the broker in the run on phonon (default: %(default)s): with redis only "
        "the result backend is ours",
    )  # fmt: skip
    parser.add_argument("-k", dest="keyword", default="", help="as pytest's -k: a short run")
    parser.add_argument("--reuse-stock", action="store_true", help="take stock's saved results")
    parser.add_argument(
        "--jobs", type=int, default=4,
        help="pytest processes at a time (default %(default)s: most tests wait most of the time)",
    )  # fmt: skip
    parser.add_argument(
        "--server", default=server_name(),
        help=f"the server to run on (default %(default)s; installed: {[*server_binaries()]})",
    )  # fmt: skip
    parser.add_argument("--cache", type=Path, default=None, help="directory of the downloads")
    parser.add_argument("--logs", type=Path, default=None, help="directory of pytest's output")
    return parser.parse_args(arguments)


@dataclass
class Result:
    """What one suite came to, on both schemes; the seconds are those of its pieces added up."""

    stock: Outcomes = field(default_factory=dict)
    ours: Outcomes = field(default_factory=dict)
    stock_seconds: float = 0.0
    ours_seconds: float = 0.0

    def add(self, other: Result) -> None:
        """Take over what another piece of the suite came to."""
        self.stock.update(other.stock)
        self.ours.update(other.ours)
        self.stock_seconds += other.stock_seconds
        self.ours_seconds += other.ours_seconds


class Session:
    """One run of the command: its options, its directories, and the work on each piece."""

    def __init__(self, options: argparse.Namespace, work: Path) -> None:
        self.options = options
        self.work = work
        self.cache: Path = options.cache or default_cache()
        self.logs: Path = options.logs or self.cache / "logs"
        self.names = list(SUITES) if options.suite == "all" else [options.suite]

    def excluded(self, suite: str) -> dict[str, str]:
        """What ours is excused from, with the reasons."""
        return excluded_tests(suite, self.options.backend, self.options.broker)

    def saved_stock(self, suite: str, piece: Piece) -> Path:
        """The file of stock's results with just these versions, this Python and this server."""
        versions = [f"{package}-{version(package)}" for package in ("kombu", "celery", "redis")]
        python = ".".join(platform.python_version_tuple()[:2])
        directory = self.cache / "-".join(["stock", *versions, python, self.options.server])
        return directory / f"{suite}-{piece.name}.json"

    def prepare(self, suite: str) -> Path:
        """Unpack the tests of a suite, with the plugin beside them."""
        directory = self.work / suite
        unpack(fetch(SUITES[suite].package, self.cache), directory)
        shutil.copy(Path(__file__).with_name("plugin.py"), directory / f"{PLUGIN_NAME}.py")
        return directory

    def runner(self, suite: str, **settings: Any) -> Runner:
        options = self.options
        return Runner(
            SUITES[suite], self.work / suite, self.logs, server=options.server,
            keyword=options.keyword, **settings,
        )  # fmt: skip

    def run(self) -> dict[str, Result]:
        """Run all that the options ask for: each piece in a process, on a server of its own."""
        results = {name: Result() for name in self.names}
        jobs = [
            (name, piece)
            for name in reversed(self.names)
            for piece in SUITES[name].pieces(self.prepare(name))
        ]
        with ThreadPoolExecutor(self.options.jobs) as pool:
            work = [(name, pool.submit(self.run_piece, name, piece)) for name, piece in jobs]
            try:
                for name, future in work:
                    results[name].add(future.result())
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                end_all_runs()
                raise
        return results

    def run_piece(self, suite: str, piece: Piece) -> Result:
        """Run the tests of one piece: on stock, then on ours those that stock passes."""
        result, saved, options = Result(), self.saved_stock(suite, piece), self.options
        name = f"{suite}-{piece.name}"
        targets: Piece | list[str] = piece
        if (options.scheme == OURS or options.reuse_stock) and saved.exists():
            result.stock = load(saved)
            result.stock_seconds = sum(one.seconds for one in result.stock.values())
        elif options.scheme != OURS:
            began = time.monotonic()
            result.stock = self.runner(suite).run(piece, f"{name}-{STOCK}")
            result.stock_seconds = time.monotonic() - began
            if not options.keyword:
                save(result.stock, saved)
            progress(name, STOCK, result.stock_seconds, counts(result.stock))
        if options.scheme != OURS or saved.exists():
            targets = [t for t, o in result.stock.items() if o.outcome in (PASSED, FLAKY)]
        if options.scheme != STOCK and targets:
            began = time.monotonic()
            result.ours = self.run_ours(suite, name, targets, result.stock)
            result.ours_seconds = time.monotonic() - began
            progress(name, OURS, result.ours_seconds, counts(result.ours, self.excluded(suite)))
        return result

    def run_ours(
        self, suite: str, name: str, targets: Piece | list[str], stock: Outcomes
    ) -> Outcomes:
        """Run tests on phonon, and those that skipped themselves once more in disguise."""
        settings = {
            "broker": self.options.broker,
            "backend": self.options.backend,
            "limits": {t: max(LEAST_LIMIT_SECONDS, PATIENCE * o.seconds) for t, o in stock.items()},
        }
        name = f"{name}-{OURS}"
        excluded = [test for test in stock if reason(self.excluded(suite), test) is not None]
        outcomes = self.runner(suite, **settings).run(targets, name, excluded)
        skipped = [test for test, one in outcomes.items() if one.outcome == SKIPPED]
        if skipped and suite == "celery":
            runner = self.runner(suite, disguise=True, **settings)
            outcomes.update(runner.run(skipped, f"{name}-disguised", excluded))
        return outcomes


def say(text: str) -> None:
    """Print a line at once: a whole run takes many minutes."""
    print(text, flush=True)


def progress(name: str, scheme: str, seconds: float, found: Counter[str]) -> None:
    """Say how one piece went, unless no test of it was selected."""
    if found:
        figures = ", ".join(f"{number} {outcome}" for outcome, number in found.items())
        say(f"{seconds:6.0f} s  {name} on {scheme}: {figures}")


def assumed(ours: Outcomes) -> Outcomes:
    """Stand in for stock's outcomes where there are none: all passed that did not skip itself."""
    idle = (SKIPPED, UNCOLLECTABLE)
    return {test: Outcome(PASSED) for test, one in ours.items() if one.outcome not in idle}


def report(session: Session, results: dict[str, Result]) -> bool:
    """Print the table and what is wrong; return whether nothing is."""
    rows, verdicts = [], {}
    scheme = session.options.scheme
    for name, result in results.items():
        title = SUITES[name].title
        if result.stock:
            rows.append((title, f"{STOCK} -> {STOCK}", counts(result.stock), result.stock_seconds))
        if scheme != STOCK:
            found = counts(result.ours, session.excluded(name))
            schemes = f"{session.options.broker} -> {session.options.backend}"
            rows.append((title, schemes, found, result.ours_seconds))
            basis = result.stock or assumed(result.ours)
            complete = not session.options.keyword
            if not complete:
                basis = {
                    test: one
                    for test, one in basis.items()
                    if test in result.ours or one.outcome == UNCOLLECTABLE
                }
            verdicts[name] = compare(
                basis, result.ours, session.excluded(name), KNOWN_FLAKY[name], complete
            )
    say("\n" + table(rows))
    for name, result in results.items():
        verdict = verdicts.get(name, Verdict())
        unsteady = [f"{t}: {o.message}" for t, o in result.stock.items() if o.outcome == FLAKY]
        failed = [f"{t}: {o.message}" for t, o in result.stock.items() if o.outcome == FAILED]
        for heading, lines in (
            ("passed by stock, not by ours", verdict.broken),
            ("unsteady on ours only", verdict.unsteady),
            ("stale exclusions: ours passes them", verdict.stale),
            ("flaky, known to be", verdict.flaky),
            ("listed, but stock passes no such test in this version", verdict.unmatched),
            ("stock fails", failed),
            ("stock is unsteady", unsteady),
        ):
            if lines:
                say(f"\n{name}: {heading} ({len(lines)})\n  " + "\n  ".join(lines))
    say(f"\npytest's output: {session.logs}")
    return all(verdict.good for verdict in verdicts.values())


def main(arguments: list[str] | None = None) -> int:
    """Run the command and return its exit status."""
    options = parse_arguments(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = Path(tempfile.mkdtemp(prefix="phonon-upstream-"))
    try:
        session = Session(options, work)
        results = session.run()
        if not any(result.stock or result.ours for result in results.values()):
            print("no test was run", file=sys.stderr)
            return 2
        return 0 if report(session, results) else 1
    except UpstreamUnavailable as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())

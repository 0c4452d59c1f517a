"""Runs an upstream suite, or some of its tests, on one scheme; what fails is run again."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

from tests.servers import RedisServer, start_server

#: How often a test that failed is run again, each time with a fresh server and process.
RERUNS = 2
TEST_TIMEOUT_SECONDS = 300
#: A whole pytest run that takes longer is hung: it is ended, and its tests count as not run.
RUN_TIMEOUT_SECONDS = 3600
#: A file larger than this is run in so many pieces.
LARGE_FILE_BYTES = 100_000
SHARES = 4
#: On ours a test may take this many times what it takes on stock, and at least the seconds below.
PATIENCE = 4
LEAST_LIMIT_SECONDS = 60
#: The name under which a copy of plugin.py lies beside the unpacked tests.
PLUGIN_NAME = "phonon_upstream_plugin"

#: Outcomes of a test. "flaky" failed and passed when run again; "not run" never came to an end.
PASSED, FAILED, FLAKY, SKIPPED, NOT_RUN = "passed", "failed", "flaky", "skipped", "not run"
UNCOLLECTABLE = "uncollectable"


#: The process groups of the pytest runs that are under way.
_groups: set[int] = set()
_ended = threading.Event()


def end_all_runs() -> None:
    """Kill every pytest run that is under way, with all that it started, and begin no other."""
    _ended.set()
    for group in list(_groups):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


@dataclass
class Outcome:
    """What became of one test; ``message`` says why it was not passed."""

    outcome: str
    seconds: float = 0.0
    message: str = ""


Outcomes = dict[str, Outcome]


@dataclass(frozen=True)
class Piece:
    """A test file, or of a large one every so-manieth test."""

    file: str
    number: int = 0
    of: int = 1

    @property
    def name(self) -> str:
        """A name for files and for messages."""
        return Path(self.file).stem + (f"-{self.number + 1}of{self.of}" if self.of > 1 else "")


@dataclass(frozen=True)
class Suite:
    """The integration tests of one package that concern Redis."""

    package: str
    pattern: str
    plugins: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.package} {version(self.package)}"

    def pieces(self, directory: Path) -> list[Piece]:
        """Return what is run in a process of its own each, the largest files first."""
        found = sorted(directory.glob(self.pattern), key=lambda path: -path.stat().st_size)
        pieces = []
        for path in found:
            shares = SHARES if path.stat().st_size > LARGE_FILE_BYTES else 1
            file = str(path.relative_to(directory))
            pieces += [Piece(file, number, shares) for number in range(shares)]
        return pieces


SUITES = {
    "kombu": Suite("kombu", "t/integration/test_redis*.py"),
    "celery": Suite("celery", "t/integration/test_*.py", plugins=("celery.contrib.pytest",)),
}


@dataclass
class Runner:
    """Runs tests of ``suite``, unpacked in ``directory``, against servers of its own.

    ``broker`` and ``backend`` are schemes, "redis" or "phonon". With ``disguise`` the tests see
    redis URLs whatever the schemes are, so that those that skip themselves for the sake of the
    name run too. ``server`` is a name that ``tests.servers.start_server`` knows.
    """

    suite: Suite
    directory: Path
    logs: Path
    broker: str = "redis"
    backend: str = "redis"
    server: str | None = None
    keyword: str = ""
    disguise: bool = False
    #: Test -> seconds it may take. The others have TEST_TIMEOUT_SECONDS or upstream's own limit.
    limits: dict[str, float] = field(default_factory=dict)

    def run(
        self, targets: Piece | list[str], name: str, keep_failed: Iterable[str] = ()
    ) -> Outcomes:
        """Run ``targets`` (a piece or test ids); those that fail up to RERUNS times more.

        ``name`` is for the log files. Tests in ``keep_failed`` are not run again.
        """
        outcomes = self.run_once(targets, name)
        kept = set(keep_failed)
        for attempt in range(RERUNS):
            again = [
                test
                for test, result in outcomes.items()
                if result.outcome in (FAILED, NOT_RUN) and test not in kept
            ]
            if not again:
                break
            for test, result in self.run_once(again, f"{name}-again{attempt + 1}").items():
                if test not in outcomes:
                    continue
                if result.outcome == PASSED:
                    outcomes[test] = Outcome(FLAKY, result.seconds, outcomes[test].message)
                elif result.outcome != NOT_RUN:
                    outcomes[test] = result
        return outcomes

    def run_once(self, targets: Piece | list[str], name: str) -> Outcomes:
        """Run ``targets`` in one pytest process with a server of its own."""
        if _ended.is_set():
            raise InterruptedError
        self.logs.mkdir(parents=True, exist_ok=True)
        report = self.logs / f"{name}.jsonl"
        report.unlink(missing_ok=True)
        arguments = self.logs / f"{name}.args"
        chosen = [targets.file] if isinstance(targets, Piece) else targets
        arguments.write_text("\n".join(chosen), encoding="utf-8")
        limits = self.logs / f"{name}.limits.json"
        limits.write_text(json.dumps(self.limits), encoding="utf-8")
        command = [
            sys.executable, "-m", "pytest", f"@{arguments}", "--rootdir", str(self.directory),
            "-p", "pytest_timeout", "-p", PLUGIN_NAME, "-p", "no:cacheprovider",
            f"--timeout={TEST_TIMEOUT_SECONDS}", "--continue-on-collection-errors", "--color=no",
            "-v", "-ra",
        ]  # fmt: skip
        for plugin in self.suite.plugins:
            command += ["-p", plugin]
        if self.keyword:
            command += ["-k", self.keyword]
        server = start_server(name=self.server)
        try:
            with (self.logs / f"{name}.log").open("wb") as log:
                environment = self._environment(server, report)
                environment["PHONON_UPSTREAM_LIMITS"] = str(limits)
                if isinstance(targets, Piece):
                    environment["PHONON_UPSTREAM_SHARE"] = f"{targets.number}/{targets.of}"
                self._spawn(command, environment, log)
        finally:
            server.stop()
        return read_report(report)

    def _environment(self, server: RedisServer, report: Path) -> dict[str, str]:
        shown_broker, shown_backend = self.broker, self.backend
        if self.disguise:
            shown_broker = shown_backend = "redis"
        return {
            **os.environ,
            # Some tests start `celery` by its name.
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]),
            # Only the plugins named here: others (rerunfailures, xdist, ...) change outcomes.
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTEST_ADDOPTS": "",
            # As celery's own CI has it: some tests read the worker's log.
            "WORKER_LOGLEVEL": "INFO",
            "REDIS_HOST": "127.0.0.1",
            "REDIS_PORT": str(server.port),
            "REDIS_6379_TCP": str(server.port),
            "TEST_BROKER": server.url(shown_broker),
            "TEST_BACKEND": server.url(shown_backend),
            "PHONON_UPSTREAM_BROKER": self.broker,
            "PHONON_UPSTREAM_BACKEND": self.backend,
            "PHONON_UPSTREAM_REPORT": str(report),
        }

    def _spawn(self, command: list[str], environment: dict[str, str], log: object) -> None:
        process = subprocess.Popen(
            command, cwd=self.directory, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,  # type: ignore
        )  # fmt: skip
        _groups.add(process.pid)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(RUN_TIMEOUT_SECONDS)
        finally:
            # Also after a good end: a worker that outlives its test must not meet the next server.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            _groups.discard(process.pid)


def read_report(path: Path) -> Outcomes:
    """Return what the plugin noted. A test that was collected and has no end was "not run"."""
    outcomes: Outcomes = {}
    if not path.exists():
        return outcomes
    for text in path.read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        if line["event"] == "collected":
            for test in line["ids"]:
                outcomes[test] = Outcome(NOT_RUN, 0.0, "the run ended before it")
        elif line["event"] == "started":
            outcomes[line["id"]] = Outcome(NOT_RUN, 0.0, "the run ended in it")
        elif line["event"] == "finished":
            outcomes[line["id"]] = Outcome(line["outcome"], line["seconds"], line["message"])
        elif line["event"] == "uncollectable":
            outcomes[line["id"]] = Outcome(UNCOLLECTABLE, 0.0, line["message"])
    return outcomes


def save(outcomes: Outcomes, path: Path) -> None:
    """Write outcomes to a file that ``load`` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({test: asdict(one) for test, one in outcomes.items()}, indent=1))


def load(path: Path) -> Outcomes:
    """Read what ``save`` wrote."""
    return {test: Outcome(**one) for test, one in json.loads(path.read_text()).items()}

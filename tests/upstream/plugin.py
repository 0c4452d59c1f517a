"""A pytest plugin for the upstream suites: puts phonon in the place of redis, and notes outcomes.

A copy of this file lies beside the unpacked tests, so it imports nothing of ``tests``. It is set by
the environment: PHONON_UPSTREAM_BROKER and PHONON_UPSTREAM_BACKEND name the scheme that takes the
place of ``redis`` ("redis" changes nothing), PHONON_UPSTREAM_REPORT the file to which a line of
JSON is written for each step, PHONON_UPSTREAM_LIMITS one with a time limit in seconds for some of
the tests, PHONON_UPSTREAM_SHARE the share of the tests to run ("1/4": the second of four).
"""

from __future__ import annotations

import functools
import inspect
import json
import os
import re
import time
from collections.abc import Callable
from typing import Any

import pytest

#: Stock's scheme -> ours. Theirs are written into the tests of kombu.
SCHEMES = {
    "redis": "phonon",
    "rediss": "phonons",
    "redis+socket": "phonon+socket",
    "sentinel": "phonon+sentinel",
}


#: Tests that need celery's worker and ask for none.
WORKERLESS = "test_tasks.py::test_trace_log_arguments::"


def translate(url: Any) -> Any:
    """Return ``url`` (one, several joined by semicolons, or a list) with our schemes for theirs."""
    if isinstance(url, (list, tuple)):
        return type(url)(translate(one) for one in url)
    if not isinstance(url, str):
        return url
    pattern = r"(^|;)(" + "|".join(map(re.escape, SCHEMES)) + r")(?=://)"
    return re.sub(pattern, lambda match: match[1] + SCHEMES[match[2]], url)


def replace_transport() -> None:
    """Make every ``kombu.Connection`` to a redis URL one to the same server over phonon.

    Connections that name their transport class keep it.
    """
    from kombu.connection import Connection

    __import__("phonon_kombu")  # which registers the schemes

    original_init, original_switch = Connection.__init__, Connection.switch
    signature = inspect.signature(original_init)

    @functools.wraps(original_init)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        if not bound.arguments.get("transport"):
            if "hostname" in bound.arguments:
                bound.arguments["hostname"] = translate(bound.arguments["hostname"])
            options = bound.arguments.get("kwargs", {})
            if options.get("alternates"):
                options["alternates"] = translate(options["alternates"])
        original_init(*bound.args, **bound.kwargs)

    @functools.wraps(original_switch)
    def switch(self: Any, conn_str: str) -> Any:
        return original_switch(self, translate(conn_str))

    Connection.__init__, Connection.switch = init, switch
    found = Connection("redis://localhost").get_transport_cls()
    # Otherwise stock would be compared with itself.
    assert found.__module__.startswith("phonon_kombu"), f"redis:// still means {found}"


def replace_backend() -> None:
    """Make a Celery app whose ``result_backend`` is a redis URL use the phonon backend there."""
    from celery.app import backends

    original: Callable[..., Any] = backends.by_url

    @functools.wraps(original)
    def by_url(backend: Any = None, loader: Any = None) -> Any:
        return original(translate(backend), loader)

    backends.by_url = by_url


@pytest.fixture(autouse=True)
def no_sentinels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do to our Sentinel channel what a class of kombu's tests does to stock's.

    It has no sentinels and makes the pool connect straight to the server, by replacing a method of
    stock's class, which ours overrides.
    """
    patched = "test_RedisSentinelFanoutCompat"
    if os.environ.get("PHONON_UPSTREAM_BROKER", "redis") == "redis" or (
        getattr(request.cls, "__name__", "") != patched
    ):
        return
    import redis
    from kombu.transport import get_transport_cls

    def direct_pool(channel: Any, asynchronous: bool = False) -> Any:
        host, port = channel._sentinels()[0]
        parameters = {**channel._connparams(asynchronous), "host": host, "port": port}
        return redis.ConnectionPool(**parameters)

    ours = get_transport_cls("phonon+sentinel").Channel
    monkeypatch.setattr(ours, "connection_class", redis.Connection)
    monkeypatch.setattr(ours, "_sentinel_managed_pool", direct_pool)


class Report:
    """Writes what became of each test, as it happens: a hang or a crash loses no line."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.pid = os.getpid()
        self.state: dict[str, Any] = {}

    def write(self, **line: Any) -> None:
        # A process that a test forked has a copy of this plugin.
        if os.getpid() == self.pid:
            with open(self.path, "a", encoding="utf-8") as report:
                report.write(json.dumps(line) + "\n")

    def pytest_runtest_setup(self, item: Any) -> None:
        # Such a test fails on stock, often only after minutes of waiting.
        for mark in item.iter_markers("xfail"):
            conditions = [*mark.args, *filter(None, [mark.kwargs.get("condition")])]
            if True in conditions:
                pytest.skip(f"upstream expects it to fail: {mark.kwargs.get('reason', '')}")

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.write(event="uncollectable", id=report.nodeid, message=last_line(report))

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        number, _, of = os.environ.get("PHONON_UPSTREAM_SHARE", "").partition("/")
        if of:
            items[:] = items[int(number) :: int(of)]
        for item in items:
            if WORKERLESS in item.nodeid:
                # Run alone it waits for ever, on stock too: others have started the worker.
                item.fixturenames.insert(0, "celery_session_worker")  # type: ignore[attr-defined]
        path = os.environ.get("PHONON_UPSTREAM_LIMITS")
        if path:
            with open(path, encoding="utf-8") as file:
                limits = json.load(file)
            for item in items:
                if item.nodeid in limits:
                    # In front of upstream's own mark: the closest one counts.
                    item.add_marker(pytest.mark.timeout(limits[item.nodeid]), append=False)

    def pytest_collection_finish(self, session: Any) -> None:
        self.write(event="collected", ids=[item.nodeid for item in session.items])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.state = {"outcome": "passed", "message": "", "started": time.monotonic()}
        self.write(event="started", id=nodeid)

    def pytest_runtest_logreport(self, report: Any) -> None:
        # A test has several reports (set-up, call, subtests, tear-down): the worst one counts.
        if report.failed and self.state["outcome"] != "failed":
            self.state.update(outcome="failed", message=f"{report.when}: {last_line(report)}")
        elif report.skipped and self.state["outcome"] == "passed":
            self.state.update(outcome="skipped", message=last_line(report))

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        seconds = round(time.monotonic() - self.state.pop("started"), 2)
        self.write(event="finished", id=nodeid, seconds=seconds, **self.state)


def last_line(report: Any) -> str:
    """Return the line that says best why a test failed or was skipped."""
    text = report.longrepr
    if isinstance(text, tuple):
        text = text[2]
    crash = getattr(getattr(text, "reprcrash", None), "message", None)
    lines = [line for line in str(crash or text).splitlines() if line.strip()]
    return (lines[0] if crash else lines[-1])[:300] if lines else ""


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get("PHONON_UPSTREAM_BROKER", "redis") != "redis":
        replace_transport()
    if os.environ.get("PHONON_UPSTREAM_BACKEND", "redis") != "redis":
        replace_backend()
    config.pluginmanager.register(Report(os.environ["PHONON_UPSTREAM_REPORT"]), "upstream-report")

"""The Celery exam's fixtures, for workers that are killed, frozen and cut off."""

from __future__ import annotations

from collections.abc import Iterator

import kombu.pools
import pytest

from tests.celery.conftest import exam, scheme

__all__ = ["exam", "scheme"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the figures that the tests have printed."""
    reports = [
        report
        for report in terminalreporter.stats.get("passed", ())
        if report.nodeid.startswith("tests/faults/") and report.capstdout
    ]
    if reports:
        terminalreporter.section("figures of the faults")
    for report in reports:
        name = report.nodeid.partition("::")[2]
        terminalreporter.write_line(f"{name}: {'; '.join(report.capstdout.splitlines())}")


@pytest.fixture(autouse=True)
def no_heart_of_another_test() -> Iterator[None]:
    """Close the connections that Celery keeps for the whole process: those over which somebody
    waited for an answer have a heart, and it would look after this test's dead."""
    kombu.pools.reset()
    yield

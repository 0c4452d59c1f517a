"""Fixtures of the Celery exam: one broker scheme, one set of databases, many workers.

``PHONON_EXAM_STOCK=1`` runs every test on stock ``redis://`` as well: that shows which
answers are Celery's own, and that the tests do not ask for more than stock gives except
where they say so.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.celery.exam import Exam
from tests.servers import RedisServer


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "beyond_stock(what): stock does not do this, so it is not asked to"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Do not ask stock for what only ours promises: the marker says what happens there."""
    asked, spared = [], []
    for item in items:
        callspec = getattr(item, "callspec", None)
        scheme = callspec.params.get("scheme") if callspec is not None else None
        beyond = scheme == "redis" and item.get_closest_marker("beyond_stock") is not None
        (spared if beyond else asked).append(item)
    if spared:
        config.hook.pytest_deselected(items=spared)
        items[:] = asked


def schemes() -> list[str]:
    """Return the broker schemes that every test of this directory runs on."""
    return ["redis", "phonon"] if os.environ.get("PHONON_EXAM_STOCK") == "1" else ["phonon"]


@pytest.fixture(scope="module", params=schemes())
def scheme(request: pytest.FixtureRequest) -> str:
    """The broker URL's scheme."""
    return str(request.param)


@pytest.fixture
def exam(redis_server: RedisServer, scheme: str) -> Iterator[Exam]:
    """Empty databases, an application on them, and ``exam.worker(...)``; for one test."""
    with Exam(redis_server, scheme, first_db=0) as exam:
        yield exam


@pytest.fixture(scope="module")
def shared_exam(redis_server: RedisServer, scheme: str) -> Iterator[Exam]:
    """As ``exam``, but for all tests of a module, which may share workers on it."""
    with Exam(redis_server, scheme, first_db=4) as exam:
        yield exam

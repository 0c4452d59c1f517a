"""What tests of the commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from celery import Celery
from click.testing import Result

#: Runs a command; the fixture ``run`` is one.
Run = Callable[..., Result]


def ok(result: Result) -> str:
    """What was printed by a command that succeeded."""
    assert result.exit_code == 0, result.output
    return result.stdout


def publish(app: Celery, count: int, task: str = "shop.add", **options: Any) -> list[str]:
    arguments = (1, 1) if task == "shop.add" else ("x",)
    return [app.tasks[task].apply_async(arguments, **options).id for _ in range(count)]

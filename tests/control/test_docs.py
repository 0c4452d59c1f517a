"""The pages about operating on jobs say what is there, and their examples run."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import click
import pytest
from celery import Celery
from kombu import pools

import phonon_kombu.control as control
from phonon_kombu.cli import phonon
from tests.servers import RedisServer

PAGES = Path(__file__).parents[2] / "docs"
REFERENCE = (PAGES / "reference/control.md").read_text("utf-8")


@pytest.mark.parametrize("page", ["operate", "stalled-jobs"])
def test_the_examples_run(page: str, redis_server: RedisServer, redis_db: str) -> None:
    """From the top to the bottom, in one program; only the addresses are others."""
    blocks = re.findall(
        r"^```python\n(.*?)^```", (PAGES / f"howto/{page}.md").read_text("utf-8"), re.M | re.S
    )
    assert len(blocks) >= 2
    program = "\n".join(blocks)
    program = program.replace("phonon://localhost:6379/0", redis_server.url("phonon"))
    program = program.replace("redis://localhost:6379/1", redis_server.url("redis", 1))
    names = {"__name__": page}
    try:
        exec(compile(program, f"{page}.md", "exec"), names)
    finally:
        app = names["app"]
        assert isinstance(app, Celery)
        if app.conf.result_backend:
            app.backend.result_consumer.stop()
            app.backend.remove_pending_result = lambda result: result
        app.close()
        pools.reset()


def test_the_reference_names_all_commands_and_options() -> None:
    for name, command in phonon.commands.items():
        assert re.search(rf"\| `{name}\b", REFERENCE), name
        for parameter in command.params:
            for option in parameter.opts if isinstance(parameter, click.Option) else ():
                assert f"`{option}`" in REFERENCE, f"{name} {option}"


def test_the_reference_names_everything_in_python() -> None:
    for name in control.__all__:
        assert f"`{name}`" in REFERENCE or f".{name}`" in REFERENCE, name
    for name in dir(control.Operator):
        hidden = name.startswith("_") or name in ("keys", "job")
        assert hidden or f"`{name}(" in REFERENCE, name
    for kind in (control.JobInfo, control.QueueStatus, control.Node, control.Refusal):
        for field in dataclasses.fields(kind):
            assert f"`{field.name}`" in REFERENCE, f"{kind.__name__}.{field.name}"

"""The examples of the how-to page run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import phonon_kombu.thoonk as thoonk_room

PAGES = Path(__file__).parents[2] / "docs"

#: What the classes of this room use among themselves.
INTERNAL = {
    "TYPE",
    "address",
    "finish_channel",
    "join",
    "leave",
    "server_identity",
    "subscription",
    "wait",
}


def test_jobs_from_python(url: str) -> None:
    """From the top to the bottom, in one program; only the address is another."""
    page = (PAGES / "howto/jobs-from-python.md").read_text("utf-8")
    address = "phonon://localhost:6379/0"
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.M | re.S)
    assert len(blocks) > 8 and address in blocks[0]
    program = "\n".join(blocks).replace(address, url)
    exec(compile(program, "jobs-from-python.md", "exec"), {"__name__": "howto"})


def test_reference_names_everything() -> None:
    """Each public method of a session, a job feed and a queue, and each public name."""
    page = (PAGES / "reference/thoonk-jobs.md").read_text("utf-8")
    for kind in (thoonk_room.Job, thoonk_room.Queue, thoonk_room.Thoonk):
        for name in dir(kind):
            if not name.startswith("_") and name not in INTERNAL:
                assert f"`{name}(" in page or f".{name}`" in page, name
    for name in thoonk_room.__all__:
        assert name in page, name

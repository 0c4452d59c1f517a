"""The examples of the pages run as they stand, and the references name everything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import phonon_kombu.thoonk as thoonk_room
from phonon_kombu.store import embedded
from tests import reference

PAGES = Path(__file__).parents[2] / "docs"


def program_of(page: str, address: str, url: str) -> str:
    """All Python of a page, from the top to the bottom, with another address."""
    text = (PAGES / page).read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)
    assert len(blocks) > 8 and address in blocks[0]
    return "\n".join(blocks).replace(address, url)


def test_jobs_from_python(url: str) -> None:
    """In one program; only the address is another."""
    program = program_of("howto/jobs-from-python.md", "phonon://localhost:6379/0", url)
    exec(compile(program, "jobs-from-python.md", "exec"), {"__name__": "howto"})


def test_the_tutorial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It prints what the page says, on the embedded server that it starts."""
    program = program_of(
        "tutorial/thoonk.md", "phonon+embedded://", f"phonon+embedded://{tmp_path}"
    )
    try:
        exec(compile(program, "thoonk.md", "exec"), {"__name__": "tutorial"})
    finally:
        embedded.release(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    said = "NEWS: A cat was found"
    assert [line for line in lines if not line.startswith("NEWS:")] == [
        "['shelves', 'rain']",
        "The cat is home again",
        "item The cat is home again",
        "edit The cat is asleep",
        "['Cat', 'Rain', 'Shelves']",
        "True",
        "the cat!",
        "('front page', 'printed')",
        "The library has new shelves",
        "['front page', 'mail', 'print', 'weather']",
    ]
    assert said in lines


def test_the_reference_of_feeds_is_made_from_the_docstrings() -> None:
    assert reference.FEEDS.path.read_text("utf-8") == reference.FEEDS.text()


def test_every_method_says_what_it_does() -> None:
    for kind in (*reference.FEEDS.classes, thoonk_room.Job):
        assert kind.__doc__
        for name in reference.public(kind, reference.FEEDS.internal):
            assert getattr(kind, name).__doc__, f"{kind.__name__}.{name}"


def test_the_reference_of_jobs_names_everything() -> None:
    """Each public method of a job feed, and each public name on one of the two pages."""
    page = (PAGES / "reference/thoonk-jobs.md").read_text("utf-8")
    for name in [*reference.public(thoonk_room.Job, reference.FEEDS.internal), "paused"]:
        assert f"`{name}(" in page or f".{name}`" in page or f"`{name}`" in page, name
    both = page + reference.FEEDS.path.read_text("utf-8")
    for name in thoonk_room.__all__:
        assert name in both, name

"""The picture of the job machine, and the page that is printed from it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from phonon_kombu.errors import REFUSALS
from phonon_kombu.thoonk import states

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "job-states.md"
HEARTBEATS = PAGE.with_name("heartbeats.md")


def test_the_page_is_up_to_date() -> None:
    """``python -m phonon_kombu.thoonk.states docs/explanation/job-states.md`` makes it so."""
    page = PAGE.read_text("utf-8")
    assert states.table() in page
    assert states.diagram() in page
    assert states.refreshed(page) == page
    heartbeats = HEARTBEATS.read_text("utf-8")
    assert states.diagram(states.CLAIMED) in heartbeats
    assert states.refreshed(heartbeats) == heartbeats


def test_the_page_is_written_by_the_command(tmp_path: Path) -> None:
    stale = PAGE.read_text("utf-8").replace("claim", "clam")
    copy = tmp_path / "page.md"
    copy.write_text(stale, "utf-8")

    subprocess.run(
        [sys.executable, "-m", "phonon_kombu.thoonk.states", str(copy)], check=True, timeout=60
    )

    fresh = copy.read_text("utf-8")
    assert states.table() in fresh and states.diagram() in fresh
    assert "clams" not in fresh.partition("<!-- table -->")[2].partition("<!-- end -->")[0]
    assert "clam " in fresh.partition("<!-- diagram -->")[0] or fresh != stale


def test_the_grid_is_complete() -> None:
    for name, operation in states.GRID.items():
        assert operation.script == f"job/{name}"
        assert operation.meaning
        assert set(operation.cells) == set(states.STATES)
        for cell in operation.cells.values():
            assert set(cell.becomes) <= set(states.STATES)
            assert set(cell.refusals) <= set(REFUSALS)
            assert cell.becomes or cell.refusals or cell.when
            if len(cell.becomes) + len(cell.refusals) > 1:
                assert cell.when, f"{name}: what decides?"


@pytest.mark.parametrize("state", [state for state in states.STATES if state != states.ABSENT])
def test_every_state_is_entered_and_left(state: str) -> None:
    arrows = {
        (old, new)
        for operation in states.GRID.values()
        for old, cell in operation.cells.items()
        for new in cell.becomes
        if old != new
    }
    assert any(new == state for _, new in arrows)
    assert any(old == state for old, _ in arrows)


def test_the_table_has_a_row_for_each_operation_and_a_column_for_each_state() -> None:
    head, rule, *rows = [line for line in states.table().splitlines() if line.startswith("|")]
    assert len(rows) == len(states.GRID)
    assert {line.count("|") for line in (head, rule, *rows)} == {len(states.STATES) + 2}
    retry = next(row for row in rows if row.startswith("| `retry`"))
    cells = [cell.strip() for cell in retry.split("|")[2:-1]]
    assert [cell.startswith("`NOTSTALLED`") for cell in cells] == [True] * 4 + [False]
    assert cells[4].startswith("ready")


def test_the_diagram_has_each_change_of_state_once() -> None:
    lines = states.diagram().splitlines()
    assert lines[0] == "stateDiagram-v2"
    ends = [line.partition(":")[0].strip() for line in lines[1:]]
    assert len(ends) == len(set(ends))
    assert "stalled --> ready" in ends and "[*] --> scheduled" in ends

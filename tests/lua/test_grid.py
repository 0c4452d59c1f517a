"""Every cell of the grid against the server: seed a state, act once, compare all keys."""

from __future__ import annotations

from collections import defaultdict

import pytest

from phonon_kombu.store import scripts
from phonon_kombu.thoonk.states import GRID, STATES
from tests.lua import cases_held, cases_waiting  # noqa: F401  they fill CASES
from tests.lua.cases import CASES, SEEDS, Case, play
from tests.lua.machine import Machine


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_case(machine: Machine, case: Case) -> None:
    """The job ends where the case says, and nothing else in the queue has changed."""
    play(machine, case)


def test_cases_fill_the_grid() -> None:
    """For each cell there is a case for each outcome that it names, and none that it does not."""
    played = defaultdict(set)
    for case in CASES:
        played[case.operation, SEEDS[case.seed][0]].add(case.to)
    for name, operation in GRID.items():
        for state in STATES:
            cell = operation.cells[state]
            outcomes = played.pop((name, state), set())
            assert outcomes == {*cell.becomes, *cell.refusals}, (name, state)
    assert not played


def test_grid_names_all_scripts() -> None:
    """No script of the job machine is missing in the grid."""
    assert {operation.script for operation in GRID.values()} == {
        name for name in scripts.names() if name.startswith("job/")
    }


def test_grid_refuses_with_the_words_of_the_headers() -> None:
    """The refusals of an operation are those that its script documents."""
    for operation in GRID.values():
        words = {word for cell in operation.cells.values() for word in cell.refusals}
        assert words == scripts.load(operation.script).errors, operation.script

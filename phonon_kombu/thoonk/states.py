"""The job machine as data: what each operation does to a job in each state.

The scripts in ``store/lua/job`` are the machine. This is its picture: a test walks every cell
against a real server, and the page on job states is printed from it
(``python -m phonon_kombu.thoonk.states docs/explanation/job-states.md``).
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

ABSENT, READY, SCHEDULED, CLAIMED, STALLED = "absent", "ready", "scheduled", "claimed", "stalled"

#: The states of a job -> what that means.
STATES = {
    ABSENT: "no job has this id",
    READY: "it waits for somebody who claims it",
    SCHEDULED: "it becomes ready when it falls due",
    CLAIMED: "an owner is working on it",
    STALLED: "it was taken out of the running and waits for a decision",
}


class Cell(NamedTuple):
    """What an operation does to a job in one state.

    `becomes` are the states in which the job may be afterwards, `refusals` the words with which
    the script may refuse, having changed nothing; `when` says what decides between them.
    """

    becomes: tuple[str, ...] = ()
    refusals: tuple[str, ...] = ()
    when: str = ""


class Operation(NamedTuple):
    """One script: its file under ``store/lua``, what it is for, and a cell for each state."""

    script: str
    meaning: str
    cells: dict[str, Cell]


def _row(**cells: Cell) -> dict[str, Cell]:
    """A cell for each state; a job in a state that is not given is left alone."""
    return {state: cells.get(state, Cell((state,))) for state in STATES}


def _refused(word: str) -> Cell:
    return Cell((), (word,))


def _taken(state: str, *refusals: str) -> Cell:
    return Cell(
        (state,), ("EXISTS", *refusals), "the same item again: nothing happens; another: refused"
    )


#: When an owner may finish a job that it does not hold any more.
LATE = (
    "gone if it was taken from this owner, who was taken for dead, and nobody has claimed it since"
)
_LIMITED = "gone if it is the oldest of a queue that is longer than its `max_length`"


GRID = {
    "put": Operation(
        "job/put",
        "add a job",
        {
            ABSENT: Cell(
                (READY, SCHEDULED, ABSENT),
                ("UNBOUND", "QUEUEFULL"),
                "scheduled with a delay; none if another job has its deduplication id, or the "
                "queue is full",
            ),
            READY: Cell(
                (READY, ABSENT),
                ("EXISTS", "UNBOUND", "QUEUEFULL"),
                f"{_taken(READY).when}; {_LIMITED}",
            ),
            **{
                state: _taken(state, "UNBOUND", "QUEUEFULL")
                for state in (SCHEDULED, CLAIMED, STALLED)
            },
        },
    ),
    "append": Operation(
        "job/append",
        "add a job behind all others of level 0",
        {
            ABSENT: Cell((READY,), ("RULED",), "refused if the queue has rules"),
            **{state: _taken(state, "RULED") for state in (READY, SCHEDULED, CLAIMED, STALLED)},
        },
    ),
    "shelve": Operation(
        "job/shelve",
        "add a job that is stalled from the beginning",
        {
            ABSENT: Cell((STALLED,), ("UNBOUND",), "refused if it comes by a binding that is gone"),
            **{state: _taken(state, "UNBOUND") for state in (READY, SCHEDULED, CLAIMED, STALLED)},
        },
    ),
    "claim": Operation(
        "job/claim",
        "the owner's last jobs are done, as by finish; take the first ready jobs",
        _row(
            ready=Cell(
                (CLAIMED, READY, ABSENT),
                (),
                "ready while others come first or the queue is paused; gone if expired, or "
                "finished late (see `finish`)",
            ),
            scheduled=Cell(
                (SCHEDULED, READY, CLAIMED, ABSENT),
                (),
                "if due it is ready, and may be claimed at once; gone if expired by then; left "
                "alone while the queue is paused",
            ),
            claimed=Cell((CLAIMED, ABSENT), (), "gone if its owner is done with it"),
        ),
    ),
    "finish": Operation(
        "job/finish",
        "these jobs are done",
        _row(
            ready=Cell((READY, ABSENT), (), LATE),
            claimed=Cell((ABSENT, CLAIMED), (), "left alone if another owner holds it"),
        ),
    ),
    "reject": Operation(
        "job/reject",
        "these jobs are not wanted",
        _row(claimed=Cell((ABSENT, CLAIMED), (), "left alone if another owner holds it")),
    ),
    "resolve": Operation(
        "job/resolve",
        "this job is done, with a result",
        {
            **{state: _refused("NOTCLAIMED") for state in (ABSENT, SCHEDULED, STALLED)},
            READY: Cell((ABSENT,), ("NOTCLAIMED",), LATE),
            CLAIMED: Cell((ABSENT,), ("NOTCLAIMED",), "refused if another owner holds it"),
        },
    ),
    "cancel": Operation(
        "job/cancel",
        "give claimed jobs back",
        _row(
            claimed=Cell(
                (READY, SCHEDULED, STALLED, CLAIMED),
                (),
                "to the front; scheduled with a delay; stalled if it failed too often; left "
                "alone if another owner holds it",
            )
        ),
    ),
    "recover": Operation(
        "job/recover",
        "give back what a dead owner holds",
        _row(
            claimed=Cell(
                (READY, STALLED, CLAIMED),
                (),
                "to the front, and expires no more; stalled if it failed too often; left alone if "
                "another owner's",
            )
        ),
    ),
    "stall": Operation(
        "job/stall",
        "take a job out of the running",
        {
            ABSENT: _refused("NOTFOUND"),
            **{
                state: Cell(
                    (STALLED,), ("NOTCLAIMED",), "refused to an owner that does not hold it"
                )
                for state in (READY, SCHEDULED, CLAIMED)
            },
            STALLED: Cell(
                (STALLED,),
                ("NOTCLAIMED",),
                "the first reason stays; refused to an owner that does not hold it",
            ),
        },
    ),
    "retry": Operation(
        "job/retry",
        "let a stalled job run again",
        {
            **{state: _refused("NOTSTALLED") for state in (ABSENT, READY, SCHEDULED, CLAIMED)},
            STALLED: Cell((READY,), (), "as if it had never failed"),
        },
    ),
    "retract": Operation(
        "job/retract",
        "delete a job",
        {
            ABSENT: _refused("NOTFOUND"),
            **{state: Cell((ABSENT,)) for state in (READY, SCHEDULED, STALLED)},
            CLAIMED: Cell((ABSENT, CLAIMED), (), "left alone if only what waits is meant"),
        },
    ),
    "purge": Operation(
        "job/purge",
        "delete a slice of what waits",
        _row(
            ready=Cell((ABSENT, READY), (), "ready if it is not in this slice"),
            scheduled=Cell((ABSENT, SCHEDULED), (), "scheduled if it is not in this slice"),
        ),
    ),
    "maintain": Operation(
        "job/maintain",
        "a slice of housekeeping",
        _row(
            ready=Cell((READY, ABSENT), (), "gone if expired"),
            scheduled=Cell((SCHEDULED, READY, ABSENT), (), "ready if due; gone if expired"),
            claimed=Cell(
                (CLAIMED, READY, STALLED),
                (),
                "given back if older than `claim_timeout`; stalled if it failed too often",
            ),
        ),
    ),
    "relist": Operation(
        "job/relist",
        "put back what is in no state",
        _row(ready=Cell((), (), "only for ids that stand in no list")),
    ),
    "census": Operation("job/census", "compare the lists with what is ready", _row()),
    "scan": Operation("job/scan", "list all jobs with their states", _row()),
    "lookup": Operation("job/lookup", "tell what is known of jobs", _row()),
    "page": Operation("job/page", "list a slice of the jobs in a state", _row()),
    "touch": Operation("job/touch", "keep a queue with a lifetime alive", _row()),
    "pause": Operation("job/pause", "let nobody claim", _row()),
    "resume": Operation("job/resume", "let jobs be claimed again", _row()),
    "stats": Operation("job/stats", "count the jobs in each state", _row()),
}


def table() -> str:
    """The grid as a Markdown table, a row for each operation; what decides stands below it."""
    lines = [
        "| operation | " + " | ".join(STATES) + " |",
        "|---|" + "---|" * len(STATES),
    ]
    notes: list[str] = []
    for name, operation in GRID.items():
        cells = (_text(state, operation.cells[state], notes) for state in STATES)
        lines.append(f"| `{name}`: {operation.meaning} | " + " | ".join(cells) + " |")
    lines.append("")
    lines += [f"{number}. {note}" for number, note in enumerate(notes, 1)]
    return "\n".join(lines)


def _text(state: str, cell: Cell, notes: list[str]) -> str:
    words = [new if new != state else "·" for new in cell.becomes]
    words += [f"`{word}`" for word in cell.refusals]
    text = " / ".join(words) or "-"
    if cell.when:
        if cell.when not in notes:
            notes.append(cell.when)
        text += f" ({notes.index(cell.when) + 1})"
    return text


def diagram(about: str = "") -> str:
    """The changes of state as a Mermaid state diagram; the absent state is its start and end.

    With `about` only those into and out of that state.
    """
    arrows: dict[tuple[str, str], list[str]] = {}
    for name, operation in GRID.items():
        for state, cell in operation.cells.items():
            for new in cell.becomes:
                if new != state and about in ("", state, new):
                    arrows.setdefault((state, new), []).append(name)
    lines = ["stateDiagram-v2"]
    for (old, new), names in arrows.items():
        old, new = (state if state != ABSENT else "[*]" for state in (old, new))
        lines.append(f"    {old} --> {new}: {', '.join(names)}")
    return "\n".join(lines)


def refreshed(page: str) -> str:
    """`page` with the table and the diagrams that it shows printed anew.

    They stand between ``<!-- table -->``, ``<!-- diagram -->`` or ``<!-- claims -->`` and
    ``<!-- end -->``.
    """
    drawn = {
        "table": table(),
        "diagram": f"```mermaid\n{diagram()}\n```",
        "claims": f"```mermaid\n{diagram(CLAIMED)}\n```",
    }
    return re.sub(
        r"(<!-- (table|diagram|claims) -->\n).*?(?=<!-- end -->)",
        lambda match: f"{match[1]}{drawn[match[2]]}\n",
        page,
        flags=re.S,
    )


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        path = Path(argument)
        path.write_text(refreshed(path.read_text("utf-8")), "utf-8")

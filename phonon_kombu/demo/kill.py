"""The demo's accident: one worker is killed in the middle, and its tasks are watched."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from ..control import Operator
from .workers import Worker

#: A worker is killed when so much of all tasks has run.
MIDDLE = 1 / 3


@dataclass
class Accident:
    """What was killed, and what became of the tasks that it had in hand."""

    worker: str
    #: Ids of the tasks that it held; None on a broker that does not tell.
    in_hand: set[str] | None
    killed_at: float = field(default_factory=time.monotonic)
    #: After how many seconds none of them was in its hand any more; None: not yet.
    back_seconds: float | None = None


class Reaper:
    """Kills one worker, and sees when the jobs that it held are back in their queue.

    `broker` is a URL of our kind, or None for kombu's own transport, where nobody can tell.
    """

    def __init__(self, broker: str | None, queue: str, workers: list[Worker]) -> None:
        self.queue = queue
        self.workers = workers
        self.accident: Accident | None = None
        self._operator = Operator(broker) if broker is not None else None
        self._victim = ""

    def close(self) -> None:
        """Close the connection."""
        if self._operator is not None:
            self._operator.close()

    def strike(self) -> Accident | None:
        """Kill the worker that has the most tasks in hand, with SIGKILL, pool and all.

        Does nothing, and returns None, while nobody has any.
        """
        victim = self.workers[0]
        if self._operator is not None:
            nodes = {node.pid: node.id for node in self._operator.nodes()}
            victim = max(self.workers, key=lambda w: len(self._held(nodes.get(w.process.pid))))
            self._victim = nodes.get(victim.process.pid, "")
            if not self._held(self._victim):
                return None
        victim.kill()
        # What it holds now it cannot end any more.
        in_hand = self._held(self._victim) if self._operator is not None else None
        self.workers.remove(victim)
        self.accident = Accident(victim.name, in_hand)
        return self.accident

    def look(self) -> bool:
        """Whether the killed worker's jobs have come back since the last look."""
        accident = self.accident
        if self._operator is None or accident is None or accident.back_seconds is not None:
            return False
        if self._held(self._victim):
            return False
        accident.back_seconds = time.monotonic() - accident.killed_at
        return True

    def _held(self, node: str | None) -> set[str]:
        """The tasks of which a node holds the jobs."""
        if self._operator is None or not node:
            return set()
        return {
            job.task_id
            for job in self._operator.jobs(self.queue, state="claimed")
            if job.owner is not None and job.owner.startswith(f"{node}.")
        }

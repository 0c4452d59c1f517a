"""Looking at jobs: by their task's id, and page by page."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from urllib.parse import quote, unquote

from ..errors import ConfigurationError, NotFound
from ..thoonk import Description
from ..thoonk.base import job_id, seconds
from ..thoonk.inspection import LOOK_SLICE, STATES, descriptions, lookup_call
from .queues import OF_JOBS, QUEUE_SLICE, Queues, beat_age, queue_name, slices
from .records import JobInfo, Node, Page, job_info, job_name

#: The order in which a listing goes through the states.
LISTED = ("claimed", "ready", "scheduled", "stalled")

#: How many numbers a task's further jobs may have (``include/accept.lua``).
NUMBERS = 16

#: Slices of the server's jobs that one page looks through, when few of them are wanted.
PAGE_LOOKS = 100

#: How much of an envelope comes with a listing (``include/record.lua``), bytes.
HEAD_BYTES = 16384

#: Longer envelopes that are read in one write.
HEAD_SLICE = 20

#: The places within a queue and a state of which ``job/page`` gives the next slice.
_SCANNED = re.compile(r"[0-9]{1,20}\Z")
_RANKED = re.compile(r"-?(?:inf|[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?):")

#: A queue and a state: what one listing of jobs is about.
Place = tuple[str, str]


class Sight(Queues):
    """What can be seen of jobs. Part of :class:`~.operator.Operator`."""

    def find(self, task_id: str, queue: str | None = None) -> list[JobInfo]:
        """The jobs of a task, of all queues or of one: more than one if it was published again
        while it was there, as a retry is. Costs the same however many jobs there are.

        Arguments:
            task_id: the task's id, or a job's.
        """
        return self.find_many([task_id], queue)[task_id]

    def find_many(
        self, task_ids: Iterable[str], queue: str | None = None
    ) -> dict[str, list[JobInfo]]:
        """The same for several tasks, by their ids."""
        if isinstance(task_ids, str | bytes) or not isinstance(task_ids, Iterable):
            raise ConfigurationError(f"task_ids={task_ids!r}: it must be a list of ids")
        names = [queue_name(queue)] if queue is not None else sorted(self._names())
        found: dict[str, list[JobInfo]] = {_known_id(task_id): [] for task_id in task_ids}
        for ids in slices(list(found), LOOK_SLICE // (NUMBERS + 2)):
            wanted: dict[str, list[str]] = {}  # of each job's id the tasks that it is one of
            for task_id in ids:
                for name in _job_names(task_id):
                    wanted.setdefault(name, []).append(task_id)
            for part in slices(names, QUEUE_SLICE):
                calls = [lookup_call(self.keys(n), [job_id(i) for i in wanted]) for n in part]
                replies = self.link.send([*calls, *self._kind_calls(part)], repeat=True)
                met, now = [], 0.0
                for name, reply, kind in zip(
                    part, replies[: len(part)], replies[len(part) :], strict=True
                ):
                    now = reply[0] / 1000
                    if kind in OF_JOBS:
                        met += [(name, one) for one in descriptions(reply[1:])]
                for info in self._infos(met, now):
                    for task_id in wanted[info.id]:
                        # Of another task the name may end as if it were numbered.
                        if task_id in (info.id, info.task_id):
                            found[task_id].append(info)
        return found

    def get(self, task_id: str, queue: str | None = None) -> JobInfo:
        """The job of a task: of several the one that is nearest to running.

        Raises :exc:`~phonon_kombu.errors.NotFound`.
        """
        found = self.find(task_id, queue)
        if not found:
            raise no_job(task_id, queue)
        return min(found, key=lambda job: LISTED.index(job.state))

    def item(self, job: JobInfo) -> bytes:
        """The message of a job as it is in Redis. Raises :exc:`~phonon_kombu.errors.NotFound`."""
        if not isinstance(job, JobInfo):
            raise ConfigurationError(f"{job!r} is no job: it must be one that was found here")
        item = self.link.command(b"HGET", self.keys(job.queue).items, wire_id(job))
        if item is None:
            raise no_job(job.id, job.queue)
        return bytes(item)

    def page(
        self,
        queue: str | None = None,
        state: str | None = None,
        task: str | None = None,
        older_than_seconds: float | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """Some of the jobs of one queue, or of all, queue by queue: of each the claimed ones, then
        the ready, scheduled and stalled ones. In each state the oldest come first; scheduled ones
        in the order of their time, stalled ones in none.

        Arguments:
            state: only those in this state.
            task: only those of the task of this name.
            older_than_seconds: only those put so long ago; of stalled ones that is not known.
            limit: how many at the most, 1 to 200; of stalled ones some more may come.
            cursor: of the page before.

        A page is made of a bounded look: where few jobs are of the wanted task it may have less
        than `limit`, or none, and still not be the last.

        Raises :exc:`~phonon_kombu.errors.NotFound` for a queue that does not exist,
        :exc:`~phonon_kombu.errors.ConfigurationError`.
        """
        if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= LOOK_SLICE:
            raise ConfigurationError(f"limit={limit!r}: it must be 1 to {LOOK_SLICE}")
        places = self._places(queue, state)
        before = self._before(older_than_seconds, state)
        check_task(task)
        at, inner = _resume(places, cursor)
        jobs: list[JobInfo] = []
        for _ in range(PAGE_LOOKS):
            if at >= len(places) or len(jobs) >= limit:
                break
            found, at, inner = self._look(places, at, inner, limit - len(jobs), before)
            jobs += [job for job in found if task is None or job.task == task]
        return Page(jobs, None if at >= len(places) else _cursor(places[at], inner))

    def jobs(
        self,
        queue: str | None = None,
        state: str | None = None,
        task: str | None = None,
        older_than_seconds: float | None = None,
    ) -> Iterator[JobInfo]:
        """All of them, read in slices while you go. Arguments and errors as of :meth:`page`."""
        check_task(task)
        places = self._places(queue, state)
        yield from self._walk(places, task, self._before(older_than_seconds, state))

    def _walk(
        self, places: list[Place], task: str | None, before: float | None
    ) -> Iterator[JobInfo]:
        at, inner = 0, None
        while at < len(places):
            found, at, inner = self._look(places, at, inner, LOOK_SLICE, before)
            yield from (job for job in found if task is None or job.task == task)

    def _before(self, older_than_seconds: float | None, state: str | None) -> float | None:
        if older_than_seconds is None:
            return None
        if state == "stalled":
            raise ConfigurationError(
                "how old a stalled job is, is not known: choose by task or by queue"
            )
        # What was put in this very millisecond is no younger than nothing.
        before = self.clock() + 0.001 - seconds("older_than_seconds", older_than_seconds)
        return max(0.0, before)

    def _places(self, queue: str | None, state: str | None) -> list[Place]:
        """What a listing goes through."""
        if state is not None and state not in STATES:
            raise ConfigurationError(f"state={state!r}: it must be one of {', '.join(STATES)}")
        if queue is not None:
            self.status(queue)
        names = [queue] if queue is not None else self.queues()
        return [(name, one) for name in names for one in ([state] if state else LISTED)]

    def _look(
        self, places: list[Place], at: int, inner: str | None, limit: int, before: float | None
    ) -> tuple[list[JobInfo], int, str | None]:
        """One slice of jobs, and where the next begins."""
        name, state = places[at]
        part = self.job(name).look(state, inner, limit, before)
        infos = self._infos([(name, job) for job in part.jobs], part.now)
        return infos, at if part.cursor is not None else at + 1, part.cursor

    def _owners(self, found: Iterable[Description]) -> dict[str, tuple[Node, bool]]:
        """The processes of the owners of these jobs, and whether they live, by owner."""
        owners = sorted({one.owner for one in found if one.owner})
        if not owners:
            return {}
        nodes = [owner.rpartition(".")[0].encode("utf-8", "surrogateescape") for owner in owners]
        abouts, beats, time = self.link.send(
            (
                (b"HMGET", self.node_keys.about, *nodes),
                (b"ZMSCORE", self.node_keys.beats, *nodes),
                (b"TIME",),
            ),
            repeat=True,
        )
        known = {
            owner: self._node(owner.rpartition(".")[0], about, beat_age(beat, time))
            for owner, about, beat in zip(owners, abouts, beats, strict=True)
            if about is not None or beat is not None
        }
        return {owner: (node, node.beat_seconds is not None) for owner, node in known.items()}

    def _whole(self, found: Sequence[tuple[str, Description]]) -> list[tuple[str, Description]]:
        """The same jobs; of those whose envelope was cut the head is read once more, all of it."""
        whole = list(found)
        cut = [i for i, (_, one) in enumerate(whole) if len(one.head) == HEAD_BYTES]
        for part in slices([i for i in cut if whole[i][1].head.startswith(b"{")], HEAD_SLICE):
            calls = [
                lookup_call(self.keys(queue), [wire_id(one)])
                for queue, one in (whole[i] for i in part)
            ]
            for i, reply in zip(part, self.link.send(calls, repeat=True), strict=True):
                for again in descriptions(reply[1:]):  # none, if it is gone by now
                    whole[i] = (whole[i][0], replace(whole[i][1], head=again.head))
        return whole

    def _infos(self, found: Sequence[tuple[str, Description]], now: float) -> list[JobInfo]:
        found = self._whole(found)
        owners = self._owners(one for _, one in found)
        infos = []
        for queue, one in found:
            node, lives = owners.get(one.owner or "", (None, None))
            infos.append(job_info(queue, one, now, node, lives))
        return infos


def _resume(places: list[Place], cursor: str | None) -> tuple[int, str | None]:
    """Where a page begins that follows another."""
    if cursor is None:
        return 0, None
    if not isinstance(cursor, str):
        raise ConfigurationError(f"{cursor!r} is no cursor of a page")
    queue, state, inner = (
        unquote(part, errors="surrogateescape") for part in (*cursor.split("/"), "", "")[:3]
    )
    place = _SCANNED if state == "stalled" else _RANKED
    if cursor.count("/") != 2 or state not in STATES or not (inner == "" or place.match(inner)):
        raise ConfigurationError(f"{cursor!r} is no cursor of a page")
    if (queue, state) in places:
        return places.index((queue, state)), inner or None
    # The queue was deleted meanwhile: on with the next one.
    return next((i for i, (name, _) in enumerate(places) if name > queue), len(places)), None


def wire_id(job: JobInfo | Description) -> bytes:
    """The id of a job that was met, as it is in Redis, whatever a raw client has taken for one."""
    return job.id.encode("utf-8", "surrogateescape")


def _known_id(task_id: str) -> str:
    job_id(task_id)  # refuses what is none
    return task_id


def _job_names(task_id: str) -> list[str]:
    """The ids that a task's jobs may have."""
    first = job_name(task_id)
    # A job that is no task's may have a long id.
    long = [task_id] if first != task_id else []
    return [first, *(f"{first}~{n}" for n in range(1, NUMBERS + 1)), *long]


def check_task(task: str | None) -> None:
    if task is not None and not isinstance(task, str):
        raise ConfigurationError(f"task={task!r}: it must be the name of a task")


def _cursor(place: Place, inner: str | None) -> str:
    return "/".join(quote(part, ":~", errors="surrogateescape") for part in (*place, inner or ""))


def no_job(task_id: str, queue: str | None = None) -> NotFound:
    """The error for a task of which there is no job."""
    where = "any queue" if queue is None else f"queue {queue!r}"
    return NotFound(
        f"no job of task {task_id!r} is in {where}: it has not been published here, is done, "
        "was deleted or has expired"
    )

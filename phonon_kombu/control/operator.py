"""The operator: sees jobs and acts on them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from ..errors import ConfigurationError, JobError, NotClaimed, NotStalled, PhononError
from ..store.closing import Closing
from ..store.scripts import load
from ..thoonk.base import milliseconds
from .queues import Queues, queue_name, slices
from .records import JobInfo, Outcome, Refusal
from .session import open_session
from .sight import LISTED, Sight, check_task, no_job, wire_id

#: Jobs that are acted on in one write.
ACT_SLICE = 100


#: What jobs are chosen by, beside their ids.
WHERE = ("queue", "state", "task", "older_than_seconds")


class Action(NamedTuple):
    """An operation on many jobs."""

    name: str
    #: The call of a script for one job.
    call: Callable[[JobInfo], Any]
    #: In which states a job that is named by its id may be.
    states: tuple[str, ...]
    #: Which states are gone through where no id and no state is given.
    usual: tuple[str, ...]
    #: The refusal for a job in another state, or where the script has done nothing.
    refusal: type[JobError]
    words: str
    #: The state in which a job is left as it is, for it is so already.
    same: str | None = None


class Operator(Sight, Closing):
    """Looks at the jobs of a broker and acts on them. A context manager.

    ::

        with Operator(app) as operator:
            operator.find("3f1c...")

    Arguments:
        target: a Celery application, or the URL of a broker, as Celery takes it.
        transport_options: with a URL, the transport options (``global_keyprefix``, ...).

    Raises :exc:`~phonon_kombu.errors.ConfigurationError` if the broker is not of the kind
    ``phonon://``; redis-py's ``ConnectionError`` and ``TimeoutError``, here and in all methods,
    when the server cannot be reached.

    An operation by ids acts on all jobs of these tasks. It raises what the first of them was
    refused with if nothing could be done at all, and otherwise tells who was refused. Without ids
    it goes through all jobs that fit `queue`, `state`, `task` and `older_than_seconds`, of which at
    least one must be given. Jobs that are put or claimed meanwhile are left out, and those in
    queues that Celery's workers use among themselves, unless such a one is named.
    """

    def __init__(self, target: Any, transport_options: dict[str, Any] | None = None) -> None:
        session, self.channel, self._close = open_session(target, transport_options)
        amqp = getattr(target, "amqp", None)
        super().__init__(
            session,
            lambda: list(amqp.queues) if amqp is not None else [],
            # The option is to be the same for all of a database: so it is this one's too.
            self.channel.node_ttl,
        )

    def close(self) -> None:
        """Close the connections."""
        self._close()

    def stall(self, *ids: str, reason: str = "stalled by an operator", **where: Any) -> Outcome:
        """Take jobs out of the running until :meth:`retry`.

        A worker that runs such a job's task runs it to its end; the job stays stalled. Without ids
        and `state` those that are claimed are left alone. One that is stalled already keeps its
        reason.
        """
        if not isinstance(reason, str):
            raise ConfigurationError(f"reason={reason!r}: it must be a text")
        script, why = load("job/stall"), reason.encode("utf-8", "replace")
        only = b"1" if not ids and where.get("state") is None else b""

        def call(job: JobInfo) -> Any:
            keys = self.keys(job.queue)
            return script.prepare(keys), (wire_id(job), why, b"", keys.stall_channel, only)

        return self._act(
            Action(
                "stall",
                call,
                LISTED,
                ("ready", "scheduled"),
                JobError,
                "is claimed by a worker",
                same="stalled",
            ),
            ids,
            **where,
        )

    def retry(self, *ids: str, **where: Any) -> Outcome:
        """Let stalled jobs run again, as if they had never failed.

        Raises :exc:`~phonon_kombu.errors.NotStalled`, :exc:`~phonon_kombu.errors.NotFound`.
        """
        script = load("job/retry")

        def call(job: JobInfo) -> Any:
            keys = self.keys(job.queue)
            return script.prepare(keys), (wire_id(job), keys.retry_channel)

        return self._act(
            Action(
                "retry",
                call,
                ("stalled",),
                ("stalled",),
                NotStalled,
                "is not stalled",
            ),
            ids,
            **where,
        )

    def cancel(self, *ids: str, delay_seconds: float | None = None, **where: Any) -> Outcome:
        """Take claimed jobs from their workers and put them back in front, or with
        `delay_seconds` scheduled for then; it counts as a failed delivery.

        A worker that runs such a job's task is not stopped: the task runs twice, perhaps at the
        same time. It is for a worker that hangs.

        Raises :exc:`~phonon_kombu.errors.NotClaimed`, :exc:`~phonon_kombu.errors.NotFound`.
        """
        script, delay = load("job/cancel"), milliseconds("delay_seconds", delay_seconds)

        def call(job: JobInfo) -> Any:
            keys = self.keys(job.queue)
            # From the worker that was seen to hold it: another may have it now, that is well.
            owner = (job.owner or "").encode("utf-8", "surrogateescape")
            args = (owner, b"cancel", delay, b"", keys.cancel_channel, wire_id(job))
            return script.prepare(keys), args

        return self._act(
            Action(
                "cancel",
                call,
                ("claimed",),
                ("claimed",),
                NotClaimed,
                "is not claimed",
            ),
            ids,
            **where,
        )

    def retract(self, *ids: str, waiting: bool = False, **where: Any) -> Outcome:
        """Delete jobs: they never run, and nobody learns of it. (``Control.revoke`` tells those
        who wait.)

        A worker that runs such a job's task runs it to its end. With `waiting` claimed jobs are
        left alone, as they are without ids and `state`.

        Raises :exc:`~phonon_kombu.errors.NotFound`.
        """
        if not ids and where.get("state") is None:
            waiting = True
        script, only = load("job/retract"), b"1" if waiting else b""
        return self._act(
            Action(
                "retract",
                lambda job: (script.prepare(self.keys(job.queue)), (wire_id(job), only)),
                ("ready", "scheduled", "stalled") if waiting else LISTED,
                ("ready", "scheduled", "stalled"),
                JobError,
                "is claimed by a worker",
            ),
            ids,
            **where,
        )

    def pause(self, queue: str) -> bool:
        """Let nobody claim from `queue` until :meth:`resume`. What runs, runs to its end.

        Returns whether it was not paused before. Raises :exc:`~phonon_kombu.errors.NotFound`.
        """
        self.status(queue_name(queue))
        return self.job(queue).pause()

    def resume(self, queue: str) -> bool:
        """Let jobs of `queue` be claimed again.

        Returns whether it was paused. Raises :exc:`~phonon_kombu.errors.NotFound`.
        """
        self.status(queue_name(queue))
        return self.job(queue).resume()

    # On many -------------------------------------------------------------------------------

    def _act(
        self,
        action: Action,
        ids: tuple[str, ...],
        queue: str | None = None,
        state: str | None = None,
        task: str | None = None,
        older_than_seconds: float | None = None,
        **unknown: Any,
    ) -> Outcome:
        if unknown:
            raise TypeError(
                f"Operator.{action.name}() got an unexpected keyword argument "
                f"{next(iter(unknown))!r}: jobs are chosen by {', '.join(WHERE)}"
            )
        others = {"state": state, "task": task, "older_than_seconds": older_than_seconds}
        given = [name for name, value in others.items() if value is not None]
        if ids and given:
            raise ConfigurationError(f"jobs by their ids, or by {given[0]}: not both")
        check_task(task)
        outcome = Outcome()
        if ids:
            self._act_on_ids(action, ids, queue, outcome)
            if not outcome.done and outcome.refusals:
                raise _error(outcome.refusals[0])
            return outcome
        if not given and queue is None:
            raise ConfigurationError(
                "which jobs? Name their ids, or at least one of queue, state, task and "
                "older_than_seconds"
            )
        wanted = [state] if state is not None else list(action.usual)
        if len(wanted) == 1:
            self._before(older_than_seconds, wanted[0])  # refuses what is not known
        elif older_than_seconds is not None:
            wanted = [one for one in wanted if one != "stalled"]
        begun = self.clock()
        if queue is not None:
            # Once: a queue that nobody has declared is gone when its last job is.
            self.status(queue)
        for name in [queue] if queue is not None else self.queues():
            for one in wanted:
                age = older_than_seconds
                if age is None and one != "stalled":
                    age = 0.0  # of a busy queue the walk would never end
                jobs = self._walk([(name, one)], task, self._before(age, one))
                self._act_on_all(action, jobs, begun, outcome)
        return outcome

    def _act_on_ids(
        self, action: Action, ids: tuple[str, ...], queue: str | None, outcome: Outcome
    ) -> None:
        if queue is not None:
            self.status(queue)
        sent: set[tuple[str, str]] = set()  # a job may be named twice: by its task's id and its own
        for part in slices(list(dict.fromkeys(ids)), ACT_SLICE):
            wanted: list[JobInfo] = []
            for task_id, found in self.find_many(part, queue).items():
                fit = [job for job in found if job.state in action.states]
                wanted += [job for job in fit if (job.queue, job.id) not in sent]
                sent.update((job.queue, job.id) for job in fit)
                if not found:
                    outcome.refuse(_refusal(task_id, None, no_job(task_id, queue)))
                elif not fit:
                    outcome.refuse(_refused(action, found[0]))
            self._send(action, wanted, outcome)

    def _act_on_all(
        self, action: Action, jobs: Iterable[JobInfo], begun: float, outcome: Outcome
    ) -> None:
        part: dict[str, JobInfo] = {}  # of one queue; SSCAN may give a job twice
        for job in jobs:
            if job.claimed_at is not None and job.claimed_at > begun:
                break  # claimed meanwhile, perhaps because we have given it back
            part[job.id] = job
            if len(part) >= ACT_SLICE:
                self._send(action, list(part.values()), outcome)
                part = {}
        self._send(action, list(part.values()), outcome)

    def _send(self, action: Action, jobs: list[JobInfo], outcome: Outcome) -> None:
        if not jobs:
            return
        replies = self.link.send([action.call(job) for job in jobs], repeat=True, raise_first=False)
        for job, reply in zip(jobs, replies, strict=True):
            if isinstance(reply, JobError):
                outcome.refuse(_refused(action, job, reply))
            elif isinstance(reply, Exception):
                raise reply
            elif not reply:
                outcome.refuse(_refused(action, job))
            elif job.state == action.same:
                outcome.was(job.queue, job.id)
            else:
                outcome.add(job.queue, job.id)


def _refused(action: Action, job: JobInfo, error: JobError | None = None) -> Refusal:
    """The refusal of an action by a job, in words that name it."""
    if error is not None and type(error) is not action.refusal:
        return _refusal(job.id, job.queue, type(error)(f"job {job.id!r}: {error}"))
    # One that was in a state that allows it has changed since.
    state = "" if job.state in action.states else f": it is {job.state}"
    text = f"job {job.id!r} {action.words}{state}"
    return _refusal(job.id, job.queue, action.refusal(text))


def _refusal(job_id: str, queue: str | None, error: PhononError) -> Refusal:
    return Refusal(job_id, queue, type(error).__name__, str(error))


def _error(refusal: Refusal) -> PhononError:
    from .. import errors

    error: PhononError = getattr(errors, refusal.error)(refusal.text)
    return error


# Python names a method in its errors by where it was written; users know one class.
for _method in {**vars(Queues), **vars(Sight)}.values():
    if callable(_method) and hasattr(_method, "__qualname__"):
        _method.__qualname__ = f"Operator.{_method.__name__}"

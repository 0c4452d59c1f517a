"""``Celery(control="phonon_kombu.control:Control")``: revoking deletes what waits."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from typing import Any

from celery import signals
from celery.app.control import TERM_SIGNAME
from celery.app.control import Control as StockControl
from celery.app.task import Context
from kombu.serialization import prepare_accept_content

from ..errors import NotFound
from ..transport import codec
from ..transport.message import Message
from .operator import Operator
from .records import JobInfo
from .session import is_ours

logger = logging.getLogger("phonon_kombu.control")

#: Ids in one look-up.
SLICE = 100


class Control(StockControl):
    """Celery's remote control, with an operator's hands.

    :meth:`revoke`, and with it ``AsyncResult.revoke()`` and ``GroupResult.revoke()``, deletes the
    tasks that wait in a queue, in the same time however many wait, and stores their results as
    REVOKED. On brokers other than ``phonon://`` it does what Celery does.
    """

    _jobs: tuple[int, Operator] | None = None

    @property
    def jobs(self) -> Operator:
        """The operator of this application's broker, one for the process.

        Raises :exc:`~phonon_kombu.errors.ConfigurationError` if it is not ``phonon://``, and
        connection errors.
        """
        if self._jobs is None or self._jobs[0] != os.getpid():
            self._jobs = (os.getpid(), Operator(self.app))
        return self._jobs[1]

    def revoke(
        self,
        task_id: str | Iterable[str],
        destination: Any = None,
        terminate: bool = False,
        signal: str = TERM_SIGNAME,
        **kwargs: Any,
    ) -> Any:
        """Tell workers to ignore a task (or several), and delete it where it waits.

        All workers are told first: a task that one of them holds, or takes just now, is dealt with
        by that worker, as without us. A deleted task's result is stored as REVOKED, a chord that
        it was part of learns of it, and the signal ``task_revoked`` is sent in this process.

        With `destination` only those workers are told, and nothing is deleted: others may run it.

        Returns and raises as :meth:`celery.app.control.Control.revoke`; also
        connection errors of the broker and of the result backend.
        """
        if not isinstance(task_id, str):
            task_id = list(task_id)  # it may be read only once
        replies = super().revoke(
            task_id, destination=destination, terminate=terminate, signal=signal, **kwargs
        )
        if not destination and is_ours(self.app.connection_for_write()):
            ids = [task_id] if isinstance(task_id, str) else task_id
            for start in range(0, len(ids), SLICE):
                self._retract(ids[start : start + SLICE])
        return replies

    def _retract(self, ids: list[str]) -> None:
        for task_id, named in self.jobs.find_many(ids).items():
            # (By the id of a further job a task is not revoked, and no worker told to.)
            found = [job for job in named if job.task_id == task_id]
            held = any(job.state == "claimed" for job in found)
            gone: JobInfo | None = None
            item = b""
            for job in found:
                if job.state == "claimed":
                    continue
                try:
                    body = self.jobs.item(job)
                    if self.jobs.job(job.queue).retract(job.id, waiting=True):
                        gone, item = job, body
                    else:
                        held = True  # a worker has taken it meanwhile, and has been told
                except NotFound:
                    continue  # done, or retracted by another
            # Of a task that is there twice, the other one may run: its worker has the last word.
            if gone is not None and not held:
                self._announce(task_id, gone, item)

    def _announce(self, task_id: str, job: JobInfo, item: bytes) -> None:
        """What a worker does when it meets a revoked task."""
        task = self.app.tasks.get(job.task) if job.task else None
        request = self._request(job, item)
        ignored = job.headers.get("ignore_result")
        if ignored is None:
            ignored = bool(task and task.ignore_result)
        wanted = not ignored or bool(task and task.store_errors_even_if_ignored)
        backend = task.backend if task is not None else self.app.backend
        backend.mark_as_revoked(task_id, "revoked", request=request, store_result=wanted)
        if task is not None:
            signals.task_revoked.send(
                sender=task, request=request, terminated=False, signum=None, expired=False
            )

    def _request(self, job: JobInfo, item: bytes) -> Context:
        fields: dict[str, Any] = {**job.headers, "id": job.task_id}
        try:
            message = Message(codec.decode(item, job.queue), channel=self.jobs.channel)
            message.accept = prepare_accept_content(self.app.conf.accept_content)
            args, kwargs, embed = message.decode()
        except Exception as error:
            # Of a body that cannot be read, or may not be (pickle), we know no chord: that the
            # task is revoked can be said all the same.
            logger.warning("The message of revoked task %s cannot be read: %r", job.id, error)
            return Context(fields)
        fields |= {
            "args": args,
            "kwargs": kwargs,
            "delivery_info": message.delivery_info,
            "correlation_id": message.properties.get("correlation_id"),
            "reply_to": message.properties.get("reply_to"),
        }
        return Context({**fields, **(embed if isinstance(embed, dict) else {})})

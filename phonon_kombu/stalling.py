"""``raise Stall("why")`` in a task: its own job is set aside until an operator decides.

::

    from phonon_kombu import Stall

    @app.task(acks_late=True)
    def print_label(order):
        if printer.out_of_paper():
            raise Stall("the printer is out of paper")

The job keeps its message, its id and its reason, no worker takes it, and ``retry`` lets it run
again. No result is stored: whoever waits for the task waits on.

Where the message is still unacknowledged (``acks_late``), the worker's main process stalls it, in
one step. Where it was acknowledged before the task ran, which is Celery's default, the process that
runs the task publishes the message again, into the state *stalled*, as ``task.retry()`` publishes
one. If that fails, or the broker is not ``phonon://``, the task fails, with :exc:`Stall` as its
error.
"""

from __future__ import annotations

import logging
from typing import Any

from celery import VERSION, signals, states
from celery.exceptions import Ignore, Reject

from .control.session import is_ours

logger = logging.getLogger("phonon_kombu")


class Stall(Reject, Ignore):
    """Raised in a task: stall this task's job.

    Celery hands `requeue` of a rejected message on to the transport as it is, and for ours a text
    means: stall it, for this reason. It is also an ``Ignore``, which is what ``autoretry_for`` does
    not try again.
    """

    def __init__(self, reason: str = "") -> None:
        reason = str(reason) or "stalled by its task"
        super().__init__(reason, requeue=reason)

    def __reduce__(self) -> Any:
        # `requeue` too: it is False once the job cannot be stalled.
        return type(self), (self.reason,), {"requeue": self.requeue}

    def __str__(self) -> str:
        return str(self.reason)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.reason!r})"


@signals.task_postrun.connect(weak=False, dispatch_uid="phonon_kombu.stalling")
def _stall(sender: Any = None, retval: Any = None, state: Any = None, **_: Any) -> None:
    """In the process that has run the task, before its worker hears of the end."""
    if state != states.REJECTED or not isinstance(retval, Stall):
        return
    task, stall = sender, retval
    request = task.request
    if request.is_eager or request.called_directly:
        return
    try:
        with task.app.connection_for_read() as connection:
            ours = is_ours(connection)
        if not ours:
            raise TypeError("Stall needs a broker of the kind phonon://")
        if not task.acks_late:
            _shelve(task, stall.reason)
    except Exception as error:
        logger.exception("Task %s cannot be stalled, it has failed", request.id)
        stall.requeue = False
        stall.__cause__ = error
        if VERSION < (5, 7):  # newer workers do it for every message that is rejected for good
            task.backend.mark_as_failure(
                request.id, stall, request=request, store_result=not task.ignore_result
            )


def _shelve(task: Any, reason: str) -> None:
    """Publish the message that was acknowledged again, stalled."""
    request = task.request
    signature = task.signature_from_request(
        request, request.args, request.kwargs, retries=request.retries
    )
    from .transport.publish import STALL

    headers = {**(signature.options.get("headers") or {}), STALL: reason}
    signature.apply_async(headers=headers, eta=None, countdown=None)

"""What the pool of this process's Celery worker has begun to work on.

When a connection is lost or the worker shuts down, a prefork pool drops every task of which no
child has said that it has begun; Celery before 5.7 drops all of them. But a child runs what has
been written to its pipe, said or not: its result is then nobody's, its message is given back, and
the task runs a second time, on any broker. Here the pool keeps what it has written.
"""

from __future__ import annotations

import logging
import select
import sys
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

from .message import is_answer

logger = logging.getLogger("phonon_kombu.transport")

#: How often to look whether a child that does not read is still there, milliseconds.
LOOK_MS = 500

#: The prefork pools of this process's workers.
_prefork: WeakSet[Any] = WeakSet()


def attend() -> None:
    """Look after the pools of this process's Celery workers, from the moment they are ready."""
    if "celery.worker.state" in sys.modules:
        sys.modules["celery.signals"].worker_ready.connect(_adopt, dispatch_uid=__name__)


def begun() -> set[Any]:
    """The messages that the Celery worker of this process has begun to work on, or has given to a
    pool that does not give them back."""
    state: Any = sys.modules.get("celery.worker.state")
    if state is None:
        return set()
    active = set(state.active_requests)
    # Celery ends these tasks, and counts on their being delivered again.
    ended = {
        request
        for request in active
        if request.task.app.conf.worker_cancel_long_running_tasks_on_connection_loss
    }
    found = {request for pool in _prefork for request in _requests(_written(pool))}
    for request in active.union(state.reserved_requests, state.requests.values()):
        # A weak reference; a pool of threads keeps nothing that it could refer to.
        given = request._apply_result
        if given is not None and hasattr(given(), "_write_to"):
            continue  # a prefork pool's: found above, if it is
        if given is not None or request in active:
            found.add(request)
    return {request.message for request in found - ended}


class _Later(list[Any]):
    """What the consumer of a worker with green threads does when next something comes.

    Before 5.7 Celery puts what its tasks have to say of their messages there, too, for up to two
    seconds: no room for others until then, and whoever kills the process or the connection
    meanwhile has the task run again. Here it is said at once, as 5.7 does it.
    """

    def append(self, callback: Any) -> None:
        if not is_answer(callback):
            super().append(callback)
            return
        try:
            callback()
        except Exception as error:
            logger.exception("An answer to a message has failed: %r", error)


def _adopt(sender: Any, **kwargs: Any) -> None:
    """The worker whose consumer is `sender` is ready."""
    if not hasattr(sender, "call_soon_ack"):
        sender._pending_operations = _Later(sender._pending_operations)
    pool = sender.pool
    processes = getattr(pool, "_pool", None)
    # Consumer.on_close() calls this attribute of the pool, which the pool takes from its processes.
    if hasattr(processes, "outbound_buffer"):
        flush = pool.flush
        _prefork.add(processes)
        pool.flush = lambda: _flush(processes, flush)


def _flush(processes: Any, flush: Callable[[], None]) -> None:
    """Drop what is still in this process, by Celery's own `flush`, and nothing else."""
    written = _written(processes)
    for job in written:
        _finish_writing(processes, job)
        if not job._accepted:
            job.discard()  # else it waits for a child once more where its own one is found dead
    flush()
    for job in written:
        if not job.ready():
            _take_back(processes, job)


def _take_back(processes: Any, job: Any) -> None:
    """Know `job` again, and who is going to run it."""
    processes._cache[job._job] = job
    child = job._write_to
    if child._is_alive():
        processes._busy_workers.add(child.inqW_fd)
    elif not job._accepted:
        # The pipe of a child that died is the next one's, with all that is in it.
        heirs = (other for other in processes._pool if other.inqW_fd == child.inqW_fd)
        heir = next((other for other in heirs if other._is_alive()), None)
        if heir is None:
            processes._put_back(job)
        else:
            job._write_to = job._scheduled_for = heir
            processes._busy_workers.add(heir.inqW_fd)


def _finish_writing(processes: Any, job: Any) -> None:
    """Write `job` to its end if that was begun: a child that waits for the rest waits for ever.

    At a shutdown Celery does not; at a cold one the child is killed.
    """
    writer, child = job._writer(), job._write_to
    room = select.poll()
    room.register(child.inqW_fd, select.POLLOUT)
    while (
        writer in processes._active_writers
        and child._is_alive()
        and not sys.modules["celery.worker.state"].should_terminate
    ):
        try:
            if room.poll(LOOK_MS):
                next(writer)
        except (StopIteration, OSError):
            processes._active_writers.discard(writer)


def _written(processes: Any) -> list[Any]:
    """The jobs of which a child has been sent at least the beginning."""
    # What a child that died had not taken waits for another one, and still names the first.
    waiting = {id(job) for job in processes.outbound_buffer}
    return [
        job
        for job in processes._cache.values()
        if job._write_to is not None and id(job) not in waiting
    ]


def _requests(jobs: list[Any]) -> set[Any]:
    """The worker's requests that these jobs of the pool are to carry out."""
    called = (getattr(job._accept_callback, "__self__", None) for job in jobs)
    return {request for request in called if hasattr(request, "message")}

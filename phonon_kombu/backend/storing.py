"""Results of single tasks: kept, looked up, and announced."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import redis
from celery import states
from celery.backends.asynchronous import detect_environment
from celery.backends.redis import RedisBackend
from celery.exceptions import BackendStoreError
from kombu.utils.functional import retry_over_time
from kombu.utils.objects import cached_property

from ..errors import OutOfMemory, ScriptKilled
from ..store.client import Link
from ..store.patience import prompt
from ..store.scripts import Prepared, load
from ..store.urls import check_backend
from . import results, urls
from .consumer import ResultConsumer

logger = logging.getLogger("phonon_kombu.backend")

#: Celery's own timeout of the backend's sockets, where the user has set none.
USUAL_TIMEOUT_SECONDS = 120.0

#: Keys in one call of a script or command.
SLICE = 200


#: Refusals that may be gone when the same is tried again.
PASSING = (OutOfMemory, ScriptKilled)


class Storing(RedisBackend):
    """What a :class:`~.backend.PhononBackend` does for tasks that stand alone."""

    ResultConsumer = ResultConsumer

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # One for all threads: they share a connection, and nothing here is a thread's own.
        self.thread_safe = True
        results.adopt(self.app)

    def _params_from_url(self, url: str, defaults: dict[str, Any]) -> dict[str, Any]:
        check_backend(url)
        url = urls.translate(url)
        embedded = urls.embedded_parameters(url)
        if embedded is not None:
            params = {**defaults, "db": 0, **embedded}
            for name in ("host", "port", "socket_connect_timeout"):
                if name not in embedded:
                    params.pop(name, None)
            return params
        with urls.blamed():
            params = super()._params_from_url(url, defaults)
        if url.startswith("rediss://"):
            # Verified unless the user says otherwise, as the transport's TLS.
            params.setdefault("ssl_cert_reqs", "required")
        return dict(params)

    # The connection ------------------------------------------------------------------------

    @cached_property
    def link(self) -> Link:
        """The connection for all that is answered at once."""
        return self._new_link()

    def new_pubsub(self) -> Any:
        """A PUB/SUB connection of :attr:`client`, which gives bytes also where the client decodes:
        a result may be no text."""
        if not self.connparams.get("decode_responses"):
            return self.client.pubsub()
        return self._create_client(**self._plain_params()).pubsub()

    def _plain_params(self) -> dict[str, Any]:
        return {name: v for name, v in self.connparams.items() if name != "decode_responses"}

    def _new_link(self) -> Link:
        params = self._plain_params()
        if (
            params.get("socket_timeout") == USUAL_TIMEOUT_SECONDS
            and detect_environment() == "default"
            and not self._over_tls(params)
        ):
            # The kernel watches the time instead, without a system call before each read.
            params["socket_timeout"] = None
        pool = self._create_client(**params).connection_pool
        return Link(partial(self._acquire, pool), pool.release)

    def _get_pool(self, **params: Any) -> Any:
        if "connection_class" in params:
            params["connection_class"] = prompt(params["connection_class"])
        return super()._get_pool(**params)

    def _over_tls(self, params: dict[str, Any]) -> bool:
        kind = params.get("connection_class")
        return isinstance(kind, type) and issubclass(kind, redis.SSLConnection)

    def _acquire(self, pool: Any) -> Any:
        if self.url and self.url.startswith(("embedded://", "phonon+embedded://")):
            # Brings back an embedded server that has died.
            urls.embedded_parameters(urls.translate(self.url))
        try:
            return pool.get_connection()
        except TypeError:  # redis-py before 5.3 wants to know for what
            return pool.get_connection("_")

    def run(self, prepared: Prepared, *args: Any) -> Any:
        """Run a script, trying again as the retry policy says while the server is away, out of
        memory, or kept busy by somebody's script."""
        packed = [encoded(arg) for arg in args]
        policy = self.retry_policy
        return retry_over_time(
            self.link.run, (*self.connection_errors, *PASSING), (prepared, packed), {},
            partial(_say_again, policy.get("max_retries")), **policy,
        )  # fmt: skip

    def exception_safe_to_retry(self, exc: Exception) -> bool:
        """What ``result_backend_always_retry`` tries again."""
        return isinstance(exc, PASSING) or bool(super().exception_safe_to_retry(exc))

    # Keeping -------------------------------------------------------------------------------

    @cached_property
    def _result_head(self) -> tuple[bytes, bytes]:
        """How every result that this backend writes begins, and how one of a success does.

        Both empty where a state cannot be told by the first bytes.
        """
        if getattr(self, "compression", None):  # not in Celery 5.6
            return b"", b""
        one, other = (
            encoded(self.encode({"status": state, "result": None}))
            for state in (states.SUCCESS, states.FAILURE)
        )
        if not one.startswith(b'{"status": "SUCCESS"') or other[:12] != one[:12]:
            return b"", b""
        return one[:12], one[:20]

    def _result_value(
        self, task_id: str, result: Any, state: str, traceback: Any, request: Any
    ) -> bytes:
        """What is kept of a task. Raises :exc:`BackendStoreError` where it is too large."""
        meta = self._get_result_meta(
            result=result, state=state, traceback=traceback, request=request
        )
        meta["task_id"] = task_id.decode() if isinstance(task_id, bytes) else task_id
        value = encoded(self.encode(meta))
        if len(value) > self._MAX_STR_VALUE_SIZE:
            raise BackendStoreError(
                "value too large for Redis backend", state=state, task_id=task_id
            )
        return value

    def _lifetime(self, state: str) -> int:
        """Seconds for which a result is kept, 0 for ever."""
        if state == states.FAILURE:
            return int(getattr(self, "failure_expires", self.expires) or 0)
        return int(self.expires or 0)

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        value = self._result_value(task_id, result, state, traceback, request)
        self._keep(self.get_key_for_task(task_id), value, self._lifetime(state))
        return result

    def _keep(self, key: bytes, value: bytes, ttl_seconds: int) -> None:
        """Write a result unless there is a successful one, in one step with its announcement."""
        prepared = load("result/store").prepare(None, result=key)
        expected = b""
        while True:
            reply = self.run(prepared, value, ttl_seconds, *self._result_head, expected)
            if not isinstance(reply, list) or self._succeeded(reply[0]):
                return
            expected = hashlib.sha1(reply[0], usedforsecurity=False).hexdigest().encode()

    def _succeeded(self, stored: bytes) -> bool:
        return bool(self.decode(stored)["status"] == states.SUCCESS)

    # Looking up ----------------------------------------------------------------------------

    def get(self, key: Any) -> Any:
        """The value of a key."""
        return self.link.command(b"GET", encoded(key))

    def mget(self, keys: Sequence[Any]) -> list[Any]:
        """The values of keys, in slices."""
        found: list[Any] = []
        asked = [encoded(key) for key in keys]
        for start in range(0, len(asked), SLICE):
            found += self.link.command(b"MGET", *asked[start : start + SLICE])
        return found

    def survey(self, task_ids: Sequence[str]) -> list[Any]:
        """For each task True if it has succeeded, else what is known: its meta, or None."""
        found: list[Any] = []
        success = self._result_head[1]
        script = load("result/survey")
        for start in range(0, len(task_ids), SLICE):
            keys = [self.get_key_for_task(id) for id in task_ids[start : start + SLICE]]
            found += self.link.run(Prepared(script, keys), (success,))
        return [
            self.decode_result(one) if isinstance(one, bytes) else (True if one else None)
            for one in found
        ]

    def add_pending_result(
        self, result: Any, weak: bool = False, start_drainer: bool = True
    ) -> Any:
        """Note who waits for a result. A weak one is a member of a group that was just applied:
        nothing is subscribed for it before somebody waits for the group."""
        if not weak:
            return super().add_pending_result(result, weak=False, start_drainer=start_drainer)
        with self.result_consumer.muted():
            return super().add_pending_result(result, weak=True, start_drainer=False)

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Nothing: a client subscribes when somebody waits."""


def _say_again(
    max_retries: int | None, error: Exception, intervals: Iterator[float], retries: int
) -> float:
    seconds = next(intervals)
    limit = "any number" if max_retries is None else max_retries
    logger.error(
        "result backend: %r, retry %s of %s in %.2g s", error, retries, limit, float(seconds)
    )
    return seconds


def encoded(value: Any) -> bytes:
    """An argument of a script."""
    return value if isinstance(value, bytes) else str(value).encode()

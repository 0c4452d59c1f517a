"""Chords by reference: opened by the client, held by the header tasks, closed by the last one out.

One script keeps a part's result and lets the part arrive; the one who brings the last part is the
closer for the time of a lease, publishes the body under its fixed task id and clears up. What a
closer that died has left is taken over, by the next arrival or by any worker
(:mod:`.takeover`).
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from celery import states
from celery.canvas import maybe_signature
from celery.exceptions import BackendStoreError, ChordError
from celery.result import GroupResult, allow_join_result
from celery.utils.functional import _regen
from kombu.exceptions import OperationalError
from kombu.serialization import dumps, loads, prepare_accept_content
from kombu.utils.objects import cached_property

from ..errors import ConfigurationError, FieldError
from ..phonon.fields import Layout
from ..store.keys import AggregateKeys, ChordKeys
from ..store.scripts import load
from . import takeover
from .aggregate import layout_in, plain
from .closing import LEASE_MS, Lease, publishing, resuming
from .storing import Storing, encoded

logger = logging.getLogger("phonon_kombu.backend")

#: How long a closed chord is remembered, seconds. A part that comes later still finds no chord,
#: which is as good.
REMEMBER_SECONDS = 3600

#: Parts read at once when a chord is closed.
SLICE = 200

#: An index above this is not remembered by a bit: the bits of one chord take 1 MB at the most.
HIGHEST_INDEX = 2**23 - 1

#: What the script chord/arrive says.
WAITS, CLOSER, NOT_COUNTED, NO_CHORD, JUDGE = range(5)


class Chords(Storing):
    """What a :class:`~.backend.PhononBackend` does for chords."""

    @cached_property
    def _key_prefix(self) -> str:
        # What Celery makes of the option global_keyprefix.
        head: str = self.task_keyprefix.decode()
        return head[: -len("celery-task-meta-")]

    @property
    def _chord_life(self) -> int:
        """Seconds for which a chord is kept after its last part has arrived, 0 for ever."""
        # Celery 5.6 knows no setting of its own for chords.
        return int(getattr(self, "chord_expires", self.expires) or 0)

    def chord_keys(self, group_id: str, layout: Layout | None = None) -> ChordKeys:
        """The keys of the chord on this group; with a layout those of its aggregate, too."""
        if layout is None:
            return ChordKeys(group_id, self._key_prefix)
        fields = layout.keys(group_id, self._key_prefix, "chord", "chords")
        return AggregateKeys(group_id, fields, self._key_prefix)

    # Opening -------------------------------------------------------------------------------

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Open the chord before its header is sent."""
        group_id, header = header_result_args[0], header_result_args[1]
        nested = False
        if not isinstance(header, _regen):
            nested = any(isinstance(result, GroupResult) for result in header)
            if nested:
                # The closer needs the structure, which he joins as the client would.
                header_result = self.app.GroupResult(*header_result_args)
                structure = encoded(self.encode({"result": header_result.as_tuple()}))
                ends = (b"EX", b"%d" % self._chord_life) if self._chord_life else ()
                self.ensure(
                    self.link.command,
                    (b"SET", self.get_key_for_group(group_id), structure, *ends),
                )
        self._open(group_id, body, {"nested": "1"} if nested else {})

    def _open(self, group_id: str, body: Any, fields: dict[str, Any]) -> None:
        layout = layout_in(body)
        if layout is not None:
            # Such a header holds only parts that have an index each.
            fields = {**fields, "fields": json.dumps(layout.spec()), "unique": "1"}
        content_type, encoding, payload = dumps(
            dict(body), serializer=self.app.conf.task_serializer
        )
        fields = {"body": payload, "type": content_type, "encoding": encoding, **fields}
        flat = [part for field in fields.items() for part in field]
        self.run(
            load("chord/open").prepare(self.chord_keys(group_id, layout)),
            group_id, "1" if resuming() else "", self._chord_life or "", *flat,
        )  # fmt: skip

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """The size is known: Celery says so before it sends the last header task."""
        self.run(load("chord/size").prepare(self.chord_keys(group_id)), group_id, chord_size)

    def add_to_chord(self, group_id: str, result: Any) -> None:
        """The chord has one part more: ``Task.add_to_chord``."""
        self.run(
            load("chord/grow").prepare(self.chord_keys(group_id)),
            result.id, self._chord_life or "",
        )  # fmt: skip

    # Arriving ------------------------------------------------------------------------------

    def mark_as_done(
        self,
        task_id: str,
        result: Any,
        request: Any = None,
        store_result: bool = True,
        state: str = states.SUCCESS,
    ) -> None:
        """Keep the result; of a chord's part in one step with its arrival."""
        if not (request and request.chord and request.group and task_id):
            super().mark_as_done(task_id, result, request, store_result, state)
            return
        delta = None
        try:
            layout = layout_in(request.chord)
            if layout is not None:
                delta = layout.encode(layout.lift_result(result))
        except (FieldError, ConfigurationError) as error:
            self.mark_as_failure(task_id, error, request=request, store_result=store_result)
            return
        value = b""
        if store_result and not request.ignore_result:
            # As store_result() does it, and named as there if the value cannot be written.
            kept = self.encode_result(result, state)
            value = self._result_value(task_id, kept, state, None, request)
        try:
            self._safely(
                self._arrive, request, state, result, value, delta,
                fallback_exc=_store_error(task_id, state),
                fallback_msg="failed to store result on the backend",
            )  # fmt: skip
        except FieldError as error:
            self.mark_as_failure(task_id, error, request=request, store_result=store_result)

    def on_chord_part_return(
        self, request: Any, state: str, result: Any, propagate: Any = None, **kwargs: Any
    ) -> None:
        """A part arrives whose result, if any, has been kept already."""
        if request.group and request.id:
            self._safely(self._arrive, request, state, result, b"")

    def _safely(self, function: Any, *args: Any, **fallback: Any) -> None:
        """Call it as ``result_backend_always_retry`` wants; Celery 5.6 has no such method."""
        retry = getattr(self, "_ensure_retryable", None)
        if retry is None:
            function(*args)
        else:
            retry(function, *args, **fallback)

    def _arrive(
        self, request: Any, state: str, result: Any, value: bytes, delta: Any = None
    ) -> None:
        takeover.watch(self)
        group_id, token = request.group, uuid4().hex
        keys = self.chord_keys(group_id)
        key = self.get_key_for_task(request.id) if value else keys.result
        # A result is needed as long as the chord may be open.
        ttl = max(self._lifetime(state), self._chord_life) if self.expires else 0
        index = request.group_index
        if not isinstance(index, int) or not 0 <= index <= HIGHEST_INDEX:
            index = ""
        common = (token, LEASE_MS, self._chord_life or "")
        store = (value, ttl, *self._result_head, "")
        if delta is None:
            part = self.encode([1, request.id, state, self.encode_result(result, state)])
            what, *more = self.run(
                load("chord/arrive").prepare(keys, result=key),
                group_id, request.id, index, part,
                "1" if state in self.EXCEPTION_STATES else "", *common, *store,
            )  # fmt: skip
        else:
            keys = self.chord_keys(group_id, layout_in(request.chord))
            what, *more = self.run(
                load("chord/fold").prepare(keys, result=key),
                group_id, request.id, index, *common, *store, *delta,
            )  # fmt: skip
        if what == JUDGE:
            self._keep(key, value, ttl)
            self._arrive(request, state, result, b"", delta)
        elif what == CLOSER:
            callback = maybe_signature(request.chord, app=self.app)
            try:
                self.close_chord(group_id, callback, token, more[2] == b"1")
            except Exception:
                # This task is done, whatever becomes of the body: any worker takes over.
                logger.exception("Chord %r could not be closed here", group_id)
        elif what == NO_CHORD:
            logger.warning("A part of chord %s came when the chord was gone", group_id)

    # Closing -------------------------------------------------------------------------------

    def close_chord(self, group_id: str, callback: Any, token: str, nested: bool) -> None:
        """Publish the body, then clear up. Only for the holder of the lease.

        Arguments:
            callback: the body's signature, its task id fixed.
            token: of the lease.
            nested: the header holds groups, whose structure has been saved.
        """
        lease = load("chord/lease").prepare(self.chord_keys(group_id))

        def renew() -> bool:
            return bool(self.run(lease, group_id, token, LEASE_MS) == 0)

        try:
            with Lease(renew), publishing():
                self._publish_body(group_id, callback, nested)
        except (*self.connection_errors, OperationalError):
            raise  # nothing is cleared up: whoever takes over will find all there is
        except Exception:
            self._clear_up(group_id, callback, token)
            raise
        self._clear_up(group_id, callback, token)

    def _publish_body(self, group_id: str, callback: Any, nested: bool) -> None:
        try:
            layout = layout_in(callback)
            if layout is None:
                values = self._parts(group_id, nested)
            else:
                values = self._aggregate(group_id, layout)
        except ChordError as error:
            logger.exception("Chord %r raised: %r", group_id, error)
            self.chord_error_from_stack(callback, error)
            return
        except Exception as error:
            logger.exception("Chord %r raised: %r", group_id, error)
            self.chord_error_from_stack(callback, ChordError(f"Join error: {error!r}"))
            return
        try:
            # Publishing waits between its own retries; Celery 5.6 does not know that.
            getattr(self.app.amqp, "_retry_publish", _call)(callback.delay, values)
        except Exception as error:
            logger.exception("Chord callback for %r raised: %r", group_id, error)
            self.chord_error_from_stack(callback, ChordError(f"Callback error: {error!r}"))

    def _clear_up(self, group_id: str, callback: Any, token: str) -> None:
        try:
            layout = layout_in(callback)
        except ConfigurationError:
            layout = None  # nothing has been folded by a layout that nobody can read
        script = load("chord/close").prepare(self.chord_keys(group_id, layout))
        if not self.run(script, group_id, token, REMEMBER_SECONDS):
            logger.warning("Chord %r was taken over while it was being closed", group_id)

    def _parts(self, group_id: str, nested: bool) -> Any:
        """What the body is called with. Raises :exc:`ChordError` for the first failed part."""
        if nested:
            header = GroupResult.restore(group_id, app=self.app)
            if header is not None:
                return self._joined(header)
        found: list[tuple[float, bytes]] = []
        for entries in self._arrived(group_id):
            found += entries
        if self._chord_zset:
            found.sort(key=lambda entry: entry[0])
        return [self._unpack_chord_result(part, self.decode) for _, part in found]

    def _arrived(self, group_id: str) -> Iterator[list[tuple[float, bytes]]]:
        """The parts in the order in which they came, in slices: index, encoded part."""
        key, start = self.chord_keys(group_id).arrived, 0
        while True:
            entries = self.ensure(
                self.link.command, (b"LRANGE", key, b"%d" % start, b"%d" % (start + SLICE - 1))
            )
            split = [entry.partition(b":") for entry in entries]
            yield [(int(index) if index else math.inf, part) for index, _, part in split]
            start += SLICE
            if len(entries) < SLICE:
                return

    def _aggregate(self, group_id: str, layout: Layout) -> dict[str, Any]:
        """What the body is called with. Raises :exc:`ChordError` if a part has failed."""
        # Only failed parts are kept. The first few say enough.
        for _, part in sorted(next(self._arrived(group_id))):
            self._unpack_chord_result(part, self.decode)
        return self.aggregate_so_far(group_id, layout)

    def aggregate_so_far(self, group_id: str, layout: Layout) -> dict[str, Any]:
        """What has been folded in an aggregating chord that is not closed yet."""
        fields = layout.keys(group_id, self._key_prefix, "chord", "chords")
        return plain(self.ensure(layout.read, (self.link, fields)))

    def _joined(self, header: Any) -> Any:
        # All its members are ready, which their results do not know yet.
        header.on_ready()
        join = header.join_native if header.supports_native_join else header.join
        with allow_join_result():
            return join(timeout=self.app.conf.result_chord_join_timeout, propagate=True)

    def take_over(self, group_id: str) -> int:
        """Close the chord if its closer's lease has ended.

        Returns 0 if it was closed, -1 if there is nothing to be closed, else in how many
        milliseconds to ask again.
        """
        keys, token = self.chord_keys(group_id), uuid4().hex
        left: int = self.run(load("chord/lease").prepare(keys, closing=keys.closing),
                             group_id, token, LEASE_MS)  # fmt: skip
        if left:
            return left
        body, content_type, encoding, nested = self.link.command(
            b"HMGET", keys.chord, b"body", b"type", b"encoding", b"nested"
        )
        stored = loads(
            body, content_type.decode(), encoding.decode(), accept=self._body_accept
        )  # fmt: skip
        callback = maybe_signature(stored, app=self.app)
        logger.warning("Chord %r: its closer is gone, taking over", group_id)
        self.close_chord(group_id, callback, token, nested == b"1")
        return 0

    @cached_property
    def _body_accept(self) -> Any:
        return prepare_accept_content(self.app.conf.accept_content)


def _call(function: Any, *args: Any) -> Any:
    return function(*args)


def _store_error(task_id: str, state: str) -> Any:
    def make(message: str) -> BackendStoreError:
        return BackendStoreError(message, task_id=task_id, state=state)

    return make

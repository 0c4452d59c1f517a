"""Chords by reference: opened by the client, held by the header tasks, closed by the last one out.

One script keeps a part's result and lets the part arrive; the one who brings the last part is the
closer for the time of a lease, publishes the body under its fixed task id and clears up. What a
closer that died has left is taken over, by the next arrival or by any worker
(:mod:`.takeover`).
"""

from __future__ import annotations

import json
import logging
from typing import Any
from uuid import uuid4

from celery import states
from celery.canvas import maybe_signature
from celery.exceptions import BackendStoreError
from celery.result import GroupResult
from celery.utils.functional import _regen
from kombu.serialization import dumps

from ..errors import ConfigurationError, FieldError
from ..store.scripts import load
from . import takeover
from .aggregate import delta_of, layout_in
from .closer import Closing
from .closing import LEASE_MS, resuming
from .pointing import POINT_BYTES
from .storing import encoded

logger = logging.getLogger("phonon_kombu.backend")

#: An index above this is not remembered by a bit: the bits of one chord take 1 MB at the most.
HIGHEST_INDEX = 2**23 - 1

#: What the script chord/arrive says.
WAITS, CLOSER, NOT_COUNTED, NO_CHORD, JUDGE, ANOTHER, PROLONG = range(7)


class Chords(Closing):
    """What a :class:`~.backend.PhononBackend` does for chords."""

    # Opening -------------------------------------------------------------------------------

    def apply_chord(self, header_result_args: Any, body: Any, **kwargs: Any) -> None:
        """Open the chord before its header is sent."""
        group_id, header = header_result_args[0], header_result_args[1]
        fields = {}
        if not isinstance(header, _regen) and any(
            isinstance(result, GroupResult) for result in header
        ):
            # The closer needs the structure, which he joins as the client would. Celery's
            # record of it may end before the chord does.
            header_result = self.app.GroupResult(*header_result_args)
            structure = encoded(self.encode({"result": header_result.as_tuple()}))
            fields = {"nested": "1", "structure": structure}
            ends = (b"EX", b"%d" % self._chord_life) if self._chord_life else ()
            self.ensure(
                self.link.command,
                (b"SET", self.get_key_for_group(group_id), structure, *ends),
            )
        self._open(group_id, body, fields)

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
            group_id, resuming(), self._chord_life or "", *flat,
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
                delta = delta_of(layout, result)
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

    def mark_as_failure(
        self,
        task_id: str,
        exc: BaseException,
        traceback: Any = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,
        state: str = states.FAILURE,
    ) -> None:
        """Keep the failure, unless it is that of a part which has arrived before: of its second
        run, or of the closer that was killed after it."""
        if request and request.chord and request.group and self._has_arrived(request):
            logger.info("Part %s of chord %s had arrived: %r", task_id, request.group, exc)
            return
        super().mark_as_failure(
            task_id, exc, traceback, request, store_result, call_errbacks, state
        )

    def _has_arrived(self, request: Any) -> bool:
        keys, index = self.chord_keys(request.group), place(request)
        name = f"{request.id}:{index}".encode()
        (state, unique), bit, member, extra = self.link.send(
            (
                (b"HMGET", keys.chord, b"state", b"unique"),
                (b"GETBIT", keys.seen, str(index or 0).encode()),
                (b"SISMEMBER", keys.members, name),
                (b"SISMEMBER", keys.members, f"+{request.id}".encode()),
            ),
            repeat=True,
        )
        by_index = unique and index != "" and not extra
        return state == b"closed" or bool(bit if by_index else member)

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
        self,
        request: Any,
        state: str,
        result: Any,
        value: bytes,
        delta: Any = None,
        point: bool = True,
    ) -> None:
        takeover.watch(self)
        group_id, token = request.group, uuid4().hex
        keys = self.chord_keys(group_id)
        key = self.get_key_for_task(request.id) if value else keys.result
        # A result is needed as long as the chord may be open.
        ttl = max(self._lifetime(state), self._chord_life) if self.expires else 0
        index = place(request)
        common = (token, LEASE_MS, self._chord_life or "")
        store = (value, ttl, *self._result_head, "")
        if delta is None:
            # A chord that never expires would outlive a result that does.
            lasting = self._chord_life or not ttl
            pointed = point and lasting and state == states.SUCCESS and len(value) >= POINT_BYTES
            part = b"" if pointed else self._part(request.id, state, result)
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
        elif what == ANOTHER:
            self._arrive(request, state, result, value, delta, point=False)
        elif what == PROLONG:
            self.prolong(group_id, self._lifetime(states.SUCCESS), self._chord_life)
            self._arrive(request, state, result, value, delta, point)
        elif what == CLOSER:
            callback = maybe_signature(request.chord, app=self.app)
            try:
                self.close_chord(group_id, callback, token, more[2] == b"1", more[3])
            except Exception:
                # This task is done, whatever becomes of the body: any worker takes over.
                logger.exception("Chord %r could not be closed here", group_id)
        elif what == NO_CHORD:
            logger.warning("A part of chord %s came when the chord was gone", group_id)


def place(request: Any) -> int | str:
    """The place of a part in its header, '' if it has none."""
    index = request.group_index
    return index if isinstance(index, int) and 0 <= index <= HIGHEST_INDEX else ""


def _store_error(task_id: str, state: str) -> Any:
    def make(message: str) -> BackendStoreError:
        return BackendStoreError(message, task_id=task_id, state=state)

    return make

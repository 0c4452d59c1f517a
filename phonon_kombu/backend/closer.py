"""The closing of a chord: by the one who brought the last part, or by whoever takes over."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from functools import partial
from operator import attrgetter
from time import monotonic, sleep
from typing import Any
from uuid import uuid4

from celery import states
from celery.app.task import Context
from celery.canvas import _chain, chord, group, maybe_signature
from celery.exceptions import ChordError
from celery.result import GroupResult, result_from_tuple
from kombu.exceptions import OperationalError
from kombu.serialization import loads, prepare_accept_content
from kombu.utils.functional import maybe_list
from kombu.utils.objects import cached_property

from ..errors import ConfigurationError
from ..phonon.fields import Layout
from ..store.phonon_keys import AggregateKeys, ChordKeys
from ..store.scripts import load
from .aggregate import layout_in, plain
from .closing import LEASE_MS, Lease, publishing
from .pointing import Pointing

logger = logging.getLogger("phonon_kombu.backend")

#: How long a closed chord is remembered, seconds. A part that comes later still finds no chord,
#: which is as good.
REMEMBER_SECONDS = 3600

#: A body whose parts take so many bytes is sent compressed.
COMPRESSED_BYTES = 1024 * 1024

#: Seconds between two looks for results that a nested header needs.
JOIN_SECONDS = 0.1


class Closing(Pointing):
    """What a :class:`~.backend.PhononBackend` does when all parts of a chord are there."""

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

    def close_chord(
        self, group_id: str, callback: Any, token: str, nested: bool, opened: bytes
    ) -> None:
        """Publish the body, then clear up. Only for the holder of the lease.

        Arguments:
            callback: the body's signature, its task id fixed.
            token: of the lease.
            nested: the header holds groups, whose structure has been saved.
            opened: when the chord was opened: it may be opened again, under the same id.
        """
        lease = load("chord/lease").prepare(self.chord_keys(group_id))

        def renew() -> bool:
            return bool(self.run(lease, group_id, token, LEASE_MS) == 0)

        try:
            with Lease(renew), publishing(f"{group_id}:{opened.decode()}"):
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
            values: Any
            size = 0
            if layout is None:
                values, size = self._parts(group_id, nested)
            else:
                values = self._aggregate(group_id, layout)
        except ChordError as error:
            logger.exception("Chord %r raised: %r", group_id, error)
            self._fail_body(callback, error)
            return
        except Exception as error:
            logger.exception("Chord %r raised: %r", group_id, error)
            self._fail_body(callback, ChordError(f"Join error: {error!r}"))
            return
        try:
            # Publishing waits between its own retries; Celery 5.6 does not know that.
            publish = partial(callback.apply_async, **self._body_options(callback, size))
            getattr(self.app.amqp, "_retry_publish", _call)(publish, (values,))
        except Exception as error:
            logger.exception("Chord callback for %r raised: %r", group_id, error)
            self._fail_body(callback, ChordError(f"Callback error: {error!r}"))

    def _fail_body(self, callback: Any, error: ChordError) -> None:
        """The body will never run. Of a body that is a chord, which is not open, the body fails in
        its turn; and of a chord around this one the parts that would have ended with it."""
        _leave_errbacks_to_chords_around(callback)
        self.chord_error_from_stack(callback, error)
        if isinstance(callback, chord):
            self._fail_body(maybe_signature(callback.body, app=self.app), error)
            return
        for part in ends(callback):
            if part.options.get("chord"):
                request = Context(part)
                request.update(part.options, id=part.id, group=part.options.get("group_id"))
                self.on_chord_part_return(request, states.FAILURE, error)

    def _body_options(self, callback: Any, size: int) -> dict[str, Any]:
        """How a large body is sent: compressed, unless somebody has said how.

        The broker holds such a message twice while a worker takes it, and it is as large as all
        the parts together.
        """
        how = self._transport_options.get("chord_body_compression", "gzip")
        if size < COMPRESSED_BYTES or not how:
            return {}
        chosen = callback.options.get("compression") or self.app.conf.task_compression
        return {} if chosen else {"compression": how}

    def _clear_up(self, group_id: str, callback: Any, token: str) -> None:
        try:
            layout = layout_in(callback)
        except ConfigurationError:
            layout = None  # nothing has been folded by a layout that nobody can read
        script = load("chord/close").prepare(self.chord_keys(group_id, layout))
        if not self.run(script, group_id, token, REMEMBER_SECONDS):
            logger.warning("Chord %r was taken over while it was being closed", group_id)

    def _parts(self, group_id: str, nested: bool) -> tuple[list[Any], int]:
        """What the body is called with, and about how large that is, in bytes.

        Raises :exc:`ChordError` for the first failed part.
        """
        if nested:
            return self._joined(self._structure(group_id))
        found = [part for parts in self._arrived(group_id) for part in parts]
        if self._chord_zset:
            found.sort(key=attrgetter("place"))
        return [part.value() for part in found], sum(part.size for part in found)

    def _structure(self, group_id: str) -> GroupResult:
        key = self.chord_keys(group_id).chord
        stored = self.ensure(self.link.command, (b"HGET", key, b"structure"))
        if stored is not None:
            return result_from_tuple(self.decode(stored)["result"], self.app)
        # Opened by a release that has left it to Celery's record.
        header = GroupResult.restore(group_id, app=self.app)
        if header is None:
            raise ChordError("The structure of the header has expired")
        return header

    def _aggregate(self, group_id: str, layout: Layout) -> dict[str, Any]:
        """What the body is called with. Raises :exc:`ChordError` if a part has failed."""
        # Only failed parts are kept. The first few say enough.
        for part in sorted(next(self._arrived(group_id)), key=attrgetter("place")):
            part.value()
        return self.aggregate_so_far(group_id, layout)

    def aggregate_so_far(self, group_id: str, layout: Layout) -> dict[str, Any]:
        """What has been folded in an aggregating chord that is not closed yet."""
        fields = layout.keys(group_id, self._key_prefix, "chord", "chords")
        return plain(self.ensure(layout.read, (self.link, fields)))

    def _joined(self, header: Any) -> tuple[list[Any], int]:
        """The values of a header that holds groups, in its structure, and about how large they are.

        Waits for results that are kept elsewhere than here as long as the setting
        ``result_chord_join_timeout`` says; raises what a part has failed with.
        """
        timeout = self.app.conf.result_chord_join_timeout
        until = math.inf if timeout is None else monotonic() + timeout
        ids = list(leaves(header))
        keys = [self.get_key_for_task(id) for id in ids]
        found: dict[str, Any] = {}
        size = 0
        while True:
            for id, value in zip(ids, self.ensure(self.mget, (keys,)), strict=True):
                meta = self.decode_result(value) if value else None
                if meta is not None and meta["status"] in states.READY_STATES:
                    size += len(value) if id not in found else 0
                    found[id] = meta
            if len(found) == len(set(ids)):
                break
            if monotonic() > until:
                raise TimeoutError("the results of some parts are not kept")
            sleep(JOIN_SECONDS)

        def value_of(result: Any) -> Any:
            if hasattr(result, "results"):
                return [value_of(member) for member in result.results]
            meta = found[result.id]
            if meta["status"] in states.PROPAGATE_STATES:
                raise meta["result"]
            return meta["result"]

        return value_of(header), size

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
        body, content_type, encoding, nested, opened = self.link.command(
            b"HMGET", keys.chord, b"body", b"type", b"encoding", b"nested", b"opened"
        )
        stored = loads(
            body, content_type.decode(), encoding.decode(), accept=self._body_accept
        )  # fmt: skip
        callback = maybe_signature(stored, app=self.app)
        logger.warning("Chord %r: its closer is gone, taking over", group_id)
        self.close_chord(group_id, callback, token, nested == b"1", opened or b"")
        return 0

    @cached_property
    def _body_accept(self) -> Any:
        return prepare_accept_content(self.app.conf.accept_content)


def leaves(group: Any) -> Iterator[str]:
    """The ids of a group's tasks, and of those of the groups in it."""
    for member in group.results:
        if hasattr(member, "results"):
            yield from leaves(member)
        else:
            yield member.id


def ends(signature: Any) -> Iterator[Any]:
    """The tasks with which a signature ends."""
    if isinstance(signature, group):
        for one in signature.tasks:
            yield from ends(one)
    elif isinstance(signature, _chain):
        yield from ends(signature.tasks[-1])
    elif isinstance(signature, chord):
        yield from ends(signature.body)
    else:
        yield signature


def _leave_errbacks_to_chords_around(callback: Any) -> None:
    """Take away the error callbacks that a chord around this one has, too: it fails next and calls
    them. Celery's ``chord.link_error()`` links to the chords in the header what it is given."""
    parts = list(ends(callback))
    theirs = [one for part in parts for one in _errbacks(part.options.get("chord"))]
    for signature in (callback, *parts):
        own = _errbacks(signature)
        if own:
            signature.options["link_error"] = [one for one in own if one not in theirs]


def _errbacks(signature: Any) -> list[Any]:
    return maybe_list((signature or {}).get("options", {}).get("link_error")) or []


def _call(function: Any, *args: Any) -> Any:
    return function(*args)

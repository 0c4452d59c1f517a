"""How far a chord has come."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from celery import current_app

from ..errors import ConfigurationError
from .aggregate import HEADER, layout_in
from .chords import Chords

#: Stalled jobs of one queue that are looked at.
MOST_STALLED = 500


@dataclass(frozen=True)
class ChordProgress:
    """What is known about a chord at one moment."""

    #: ``open``, ``closing``, ``closed``; ``unknown``: there is none, or it was closed an hour ago.
    state: str
    #: How many parts there are; None while the header is still being sent.
    expected: int | None = None
    #: Parts that have returned, failed ones among them.
    arrived: int = 0
    #: Parts that have failed.
    failed: int = 0
    #: Task ids of parts whose jobs are stalled: they wait for an operator.
    stalled: list[str] = field(default_factory=list)
    #: The aggregate so far, of an aggregating chord that is open.
    aggregate: dict[str, Any] | None = None


def chord_progress(chord: Any, app: Any = None, queues: list[str] | None = None) -> ChordProgress:
    """How far a chord has come. Costs one trip, and one more for each queue; poll it freely.

    Arguments:
        chord: the result of its body (as ``chord(...)(...)`` returns it), or the group's id.
        app: by default that of the result, or the current one.
        queues: where its header tasks wait, for those that are stalled; by default the queues
            that the application consumes from. Only a phonon broker has stalled jobs.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError` if the result backend is not ours.
    """
    app = app or getattr(chord, "app", None) or current_app
    header = getattr(chord, "parent", None)
    group_id = chord if isinstance(chord, str) else getattr(header, "id", None)
    backend = app.backend
    if not isinstance(backend, Chords):
        raise ConfigurationError("chord_progress needs result_backend = 'phonon://...'")
    if not group_id:
        raise ConfigurationError(f"{chord!r} is no result of a chord")
    names = ("state", "size", "grown", "arrived", "failed", "fields")
    state, size, grown, arrived, failed, spec = backend.link.command(
        b"HMGET", backend.chord_keys(group_id).chord, *(name.encode() for name in names)
    )
    if state is None:
        return ChordProgress("unknown")
    aggregate = None
    if spec is not None and state != b"closed":
        layout = layout_in({"options": {"headers": {HEADER: spec.decode()}}})
        assert layout is not None
        aggregate = backend.aggregate_so_far(group_id, layout)
    return ChordProgress(
        state.decode(),
        None if size is None else int(size) + int(grown or 0),
        int(arrived or 0),
        int(failed or 0),
        [] if state == b"closed" else stalled(app, group_id, queues),
        aggregate,
    )


def stalled(app: Any, group_id: str, queues: list[str] | None) -> list[str]:
    """Task ids of this group's jobs that are stalled in `queues`."""
    found: list[str] = []
    with app.connection_or_acquire() as connection:
        channel = connection.default_channel
        if not hasattr(channel, "link") or not hasattr(channel, "keys"):
            return found
        for queue in queues if queues is not None else list(app.amqp.queues):
            keys = channel.keys(queue)
            cursor, seen = b"0", 0
            while seen < MOST_STALLED:
                cursor, ids = channel.link.command(b"SSCAN", keys.stalled, cursor, b"COUNT", b"100")
                seen += len(ids)
                if ids:
                    items = channel.link.command(b"HMGET", keys.items, *ids)
                    found += [
                        id.decode()
                        for id, item in zip(ids, items, strict=True)
                        if item is not None and group_of(item) == group_id
                    ]
                if cursor == b"0":
                    break
    return found


def group_of(item: bytes) -> str | None:
    """The group of a stored task message; None where it has none or cannot be read."""
    try:
        headers = json.loads(item.split(b"\n", 1)[0]).get("headers") or {}
    except (ValueError, AttributeError):
        return None
    found = headers.get("group")
    return found if isinstance(found, str) else None

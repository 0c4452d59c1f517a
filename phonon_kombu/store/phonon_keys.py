"""The names of the keys of references, locks, records and chords: the rest of :mod:`.keys`."""

from __future__ import annotations

from collections.abc import Sequence

from .keys import hash_tag


class ReferenceKeys:
    """The keys of one reference (:mod:`phonon_kombu.phonon.reference`); they share a slot."""

    __slots__ = ("name", "holders", "stalled", "about")

    def __init__(self, name: str, prefix: str = "") -> None:
        self.name = name
        tag = hash_tag(name)
        #: HASH holder -> the node on which it holds.
        self.holders = f"{prefix}reference.holders:{tag}".encode("utf-8", "surrogateescape")
        #: HASH holder -> why it is stalled.
        self.stalled = f"{prefix}reference.stalled:{tag}".encode("utf-8", "surrogateescape")
        #: HASH: ``modified``, and of the last one out ``closer`` and ``until`` (ms).
        self.about = f"{prefix}reference.about:{tag}".encode("utf-8", "surrogateescape")


class ChordKeys:
    """The keys of one chord, and of the index that all chords of a database share.

    They all share a slot: a part's arrival and the index of chords to be closed change in one
    script. The group id stands last: it may have braces.
    """

    __slots__ = (
        "group", "chord", "arrived", "seen", "members", "result", "closing", "opened", "fields"
    )  # fmt: skip

    def __init__(self, group: str, prefix: str = "") -> None:
        self.group = group
        id = group.encode("utf-8", "surrogateescape")
        #: The keys of its aggregate, where its parts are folded.
        self.fields: tuple[bytes, ...] = ()
        #: HASH of what is known about the chord: state, size, arrived, body, ...
        self.chord = f"{prefix}chord.chord:{{chords}}.".encode() + id
        #: LIST of the parts that have arrived: ``<index>:<encoded part>``.
        self.arrived = f"{prefix}chord.arrived:{{chords}}.".encode() + id
        #: STRING of bits: the indexes that have arrived, where an index tells parts apart.
        self.seen = f"{prefix}chord.seen:{{chords}}.".encode() + id
        #: SET of ``<task id>:<index>`` that have arrived, else.
        self.members = f"{prefix}chord.members:{{chords}}.".encode() + id
        #: Stands for a part's result where that is kept elsewhere. Never written.
        self.result = f"{prefix}chord.result:{{chords}}.".encode() + id
        #: ZSET of the ids of chords that are being closed by the end of the lease, ms.
        self.closing = f"{prefix}chord.closing:{{chords}}".encode()
        #: ZSET of the ids of open chords by the time they were opened, ms. Those that are never
        #: closed leave it when others are opened later.
        self.opened = f"{prefix}chord.opened:{{chords}}".encode()


class RecordKeys:
    """The keys of one record's aggregate (:mod:`phonon_kombu.phonon.fields`).

    Attributes:
        row: HASH with the record's numbers by field, and ``~`` fields about the record itself.
        collections: the keys of the fields that have one: LIST, SET, ZSET, HyperLogLog.
        holders: SET of the owners that hold the record.
        senders: HASH owner -> number of its last fold.
        seen: SET of the messages whose values are folded and that may come again.

    Arguments:
        name: of the record, any text; all its keys share a slot.
        fields: for each collection its kind and the field's name (an identifier), in order.
        room: what the record belongs to: a part of the key.
        tag: what the slot is chosen by; by default the name.
    """

    __slots__ = (
        "name",
        "row",
        "collections",
        "all",
        "holders",
        "senders",
        "seen",
        "_head",
        "_tail",
    )

    def __init__(
        self,
        name: str,
        fields: Sequence[tuple[str, str]] = (),
        prefix: str = "",
        room: str = "model",
        tag: str | None = None,
    ) -> None:
        self.name = name
        self._head = f"{prefix}{room}."
        # Behind a tag the name stands last: it may have braces.
        self._tail = f":{hash_tag(name)}" if tag is None else f":{hash_tag(tag)}.{name}"
        self.row = self._key("row")
        self.holders = self._key("holders")
        self.senders = self._key("senders")
        self.seen = self._key("seen")
        self.collections = tuple(self._key(f"{kind}.{field}") for kind, field in fields)
        self.all = (self.row, *self.collections)

    def _key(self, part: str) -> bytes:
        return f"{self._head}{part}{self._tail}".encode("utf-8", "surrogateescape")


class AggregateKeys(ChordKeys):
    """The keys of a chord whose parts are folded into one aggregate, the record `fields`."""

    __slots__ = ("row", "collections")

    def __init__(self, group: str, fields: RecordKeys, prefix: str = "") -> None:
        super().__init__(group, prefix)
        self.row, self.collections, self.fields = fields.row, fields.collections, fields.all


class ModelsKeys:
    """The keys about all records of a database: who holds which, and which nobody holds."""

    __slots__ = ("orphans", "_prefix")

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        #: ZSET of the records whose holders have all died, by the time that was noticed, ms.
        self.orphans = f"{prefix}model.orphans:{{models}}".encode()

    def held(self, node: str) -> bytes:
        """SET of what `node` holds: ``<owner> <record>``."""
        return f"{self._prefix}model.held.{node}:{{models}}".encode()


def lock_key(name: str, prefix: str = "") -> bytes:
    """Key of the lock `name`."""
    return f"{prefix}lock:{hash_tag(name)}".encode("utf-8", "surrogateescape")

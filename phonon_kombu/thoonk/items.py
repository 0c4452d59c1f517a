"""What feeds and sorted feeds have in common: items with ids, to be read and counted."""

from __future__ import annotations

from typing import Any

from ..errors import ItemNotFound
from ..store.keys import feed_keys
from .base import Base, Item, job_id, text
from .steps import Send, Steps

#: Ids or items of one slice of a reading.
SLICE = 500


class Items(Base):
    """A collection of items. The steps of both faces."""

    def _keys_of(self, name: str) -> Any:
        return feed_keys(name, self.session.prefix, self.session.hash_tags)

    def _ids(self) -> Steps[list[bytes]]:
        raise NotImplementedError

    def _get_ids(self) -> Steps[list[str]]:
        """The ids of all items, in their order."""
        return [text(ident) for ident in (yield from self._ids())]

    def _get_all(self) -> Steps[dict[str, Item]]:
        """All items by their ids, in their order. What is retracted meanwhile is left out."""
        ids = yield from self._ids()
        found: dict[str, Item] = {}
        for start in range(0, len(ids), SLICE):
            part = ids[start : start + SLICE]
            (items,) = yield Send((b"HMGET", self.keys.items, *part))
            for ident, item in zip(part, items, strict=True):
                if item is not None:
                    found[text(ident)] = self._out(item)
        return found

    def _get_item(self, id: str) -> Steps[Item]:
        """One item. Raises :exc:`~phonon_kombu.errors.ItemNotFound`."""
        (item,) = yield Send((b"HGET", self.keys.items, job_id(id)))
        if item is None:
            raise ItemNotFound(f"no item of {self.name!r} has the id {id!r}")
        return self._out(item)

    def _has_id(self, id: str) -> Steps[bool]:
        """Whether there is an item of this id."""
        (found,) = yield Send((b"HEXISTS", self.keys.items, job_id(id)))
        return bool(found)

    def _size(self) -> Steps[int]:
        """How many items there are."""
        (found,) = yield Send((b"HLEN", self.keys.items))
        return int(found)

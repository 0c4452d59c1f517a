"""What jobs and queues have in common: their keys, their scripts, their wait for work."""

from __future__ import annotations

import math
from queue import Empty
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ..errors import ConfigurationError, ItemTooLarge
from ..store.keys import queue_keys
from ..store.scripts import Prepared, load

if TYPE_CHECKING:
    from .session import Thoonk

__all__ = ["Base", "Empty", "HIGH", "Item", "POLL_SECONDS"]

#: Priority of what goes before all others.
HIGH: Final = "high"

#: The longest wait without a look, seconds: a foreign client's put leaves no wake.
POLL_SECONDS = 0.75

#: The longest duration that is taken, seconds: some 300 years, well within what Redis counts.
LONGEST_SECONDS = 1e10

#: Redis's limit for one value.
LARGEST_ITEM_BYTES = 512 * 1024 * 1024 - 1

#: An item or a result: ``str``, or ``bytes`` where `decode` is off.
Item = Any


class Base:
    """A feed that jobs or items are put into and taken from.

    Attributes:
        name: the feed's name.
        session: the :class:`~.session.Thoonk` that it belongs to.
    """

    TYPE: ClassVar[str]
    HIGH: ClassVar[str] = HIGH

    def __init__(self, session: Thoonk, name: str) -> None:
        self.session = session
        self.name = name
        self.keys = queue_keys(name, session.prefix, session.hash_tags)
        self._link = session.link
        self._scripts: dict[tuple[str, bytes], Prepared] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} at {self.session.address}>"

    def leave(self) -> None:
        """The session is being closed."""

    def _script(self, name: str, **given: bytes) -> Prepared:
        ident = (name, b"".join(given.values()))
        found = self._scripts.get(ident)
        if found is None:
            found = load(name).prepare(self.keys, **given)
            if "result" not in given:  # each result is a key of its own
                self._scripts[ident] = found
        return found

    # Waiting -------------------------------------------------------------------------------

    def _deadline(self, timeout: float | None) -> float | None:
        return None if timeout is None else monotonic() + seconds("timeout", timeout)

    def _wait(self, until: float | None, due_ms: int) -> None:
        """Wait for a wake; not beyond the deadline, the next scheduled job, the next poll.

        Raises :exc:`queue.Empty` if the deadline has passed.
        """
        left = POLL_SECONDS
        if until is not None:
            left = min(left, until - monotonic())
            if left <= 0:
                raise Empty(f"nothing came to {self.name!r} in time")
        if due_ms >= 0:
            left = min(left, due_ms / 1000)
        self.session.wait(self.keys.wake, left)

    # Text and bytes ------------------------------------------------------------------------

    def _out(self, data: bytes) -> Item:
        return text(data) if self.session.decode else data

    def _in(self, item: Item) -> bytes:
        data = item.encode("utf-8", "surrogateescape") if isinstance(item, str) else item
        if not isinstance(data, bytes):
            raise ConfigurationError(
                f"an item must be str or bytes, not {type(item).__name__}: serialise it first"
            )
        if len(data) > LARGEST_ITEM_BYTES:
            raise ItemTooLarge(
                f"an item of {len(data)} bytes: Redis takes at most {LARGEST_ITEM_BYTES} in one "
                "value. Keep large data elsewhere and put its address"
            )
        return data


def text(data: bytes) -> str:
    """Bytes of Redis as text; those that are no UTF-8 can be turned back."""
    return data.decode("utf-8", "surrogateescape")


def job_id(value: str) -> bytes:
    """The id that a caller gave, checked.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
    """
    # In the announcement of a result a NUL ends the id.
    if not isinstance(value, str) or not value or "\0" in value:
        raise ConfigurationError(f"{value!r} is no id: it must be a string without NUL")
    return value.encode("utf-8", "surrogateescape")


def seconds(name: str, value: float, above: bool = False) -> float:
    """A duration that a caller gave, checked; more than nothing if `above`.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not 0 <= value <= LONGEST_SECONDS
        or (above and value == 0)
    ):
        wanted = "a positive number" if above else "a number, 0 or more,"
        raise ConfigurationError(
            f"{name}={value!r}: it must be {wanted} of seconds, at most {LONGEST_SECONDS:.0f}"
        )
    return float(value)


def milliseconds(name: str, value: float | None, above: bool = False) -> bytes:
    """The same in milliseconds, as scripts take it; ``b""`` for None."""
    if value is None:
        return b""
    given = seconds(name, value, above)
    # What is more than nothing must not be rounded to it.
    return b"%d" % math.ceil(given * 1000)

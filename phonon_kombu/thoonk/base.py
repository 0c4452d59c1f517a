"""What all feeds have in common: their keys, their scripts, their items, a wait for work."""

from __future__ import annotations

import contextlib
import math
from queue import Empty
from time import monotonic
from typing import Any, ClassVar, Final, TypeVar

from ..errors import ConfigurationError, FeedNotFound
from ..store.keys import channel, queue_keys, wire_name
from ..store.scripts import Prepared, load
from .codecs import PLAIN, Codec, serialized
from .steps import Steps, Wait

R = TypeVar("R")

__all__ = ["Base", "Empty", "HIGH", "Item", "POLL_SECONDS"]

#: Priority of what goes before all others.
HIGH: Final = "high"

#: The longest wait without a look, seconds: a foreign client's put leaves no wake.
POLL_SECONDS = 0.75

#: The longest duration that is taken, seconds: some 300 years, well within what Redis counts.
LONGEST_SECONDS = 1e10

#: An item or a result: ``str``, or ``bytes`` where `decode` is off; Python data of a serializer.
Item = Any


class Base:
    """A feed of any type.

    Attributes:
        name: the feed's name.
        session: the :class:`~.session.Thoonk` that it belongs to.
        serializer: the name of the serializer that its items go through, or None.
    """

    TYPE: ClassVar[str]
    HIGH: ClassVar[str] = HIGH

    #: Whether a `max_length` is kept.
    TRIMMED: ClassVar[bool] = False

    #: The serializer of a feed that is made without naming one.
    DEFAULT_SERIALIZER: ClassVar[str | None] = None

    def __init__(self, session: Any, name: str, serializer: str | None = None) -> None:
        self.session = session
        self.name = name
        self.serializer = serializer
        self.keys = self._keys_of(name)
        self._link = session.link
        self._type = self.TYPE.encode()
        self._codec: Codec = serialized(serializer) if serializer else PLAIN[session.decode]
        self._scripts: dict[tuple[str, bytes], Prepared] = {}
        self._channels: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} at {self.session.address}>"

    @property
    def _session(self) -> Any:
        return self.session

    def _keys_of(self, name: str) -> Any:
        return queue_keys(name, self.session.prefix, self.session.hash_tags)

    def _channel(self, kind: str) -> bytes:
        """The PUBLISH channel of this feed's notices of a kind."""
        found = self._channels.get(kind)
        if found is None:
            wire = wire_name(self.name, self.session.hash_tags)
            found = self._channels[kind] = channel(kind, wire, self.session.prefix)
        return found

    def _leave(self) -> Steps[None]:
        """The session is being closed."""
        yield from ()

    def _deleted(self) -> Steps[None]:
        """The feed was deleted by this session."""
        yield from ()

    def _changed(self, steps: Steps[R]) -> Steps[R]:
        """A change. Where the feed is gone, or another has its name, the session forgets it."""
        try:
            return (yield from steps)
        except FeedNotFound:
            self.session.forget(self.name)
            raise

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

    def _until_woken(self, until: float | None, due_ms: int = -1) -> Steps[None]:
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
        yield Wait(self.keys.wake, left)

    def _out(self, data: bytes) -> Item:
        return self._codec.decode(data)

    def _in(self, item: Item) -> bytes:
        return self._codec.encode(item)


def text(data: bytes) -> str:
    """Bytes of Redis as text; those that are no UTF-8 can be turned back."""
    return data.decode("utf-8", "surrogateescape")


def encoded(what: str, value: Any) -> bytes:
    """A name or an id that a caller gave, checked.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
    """
    # In notices a NUL ends it.
    if isinstance(value, str) and value and "\0" not in value:
        with contextlib.suppress(UnicodeEncodeError):  # halves of a character
            return value.encode("utf-8", "surrogateescape")
    raise ConfigurationError(f"{value!r} is no {what}: it must be a string of text without NUL")


def job_id(value: str) -> bytes:
    """The id that a caller gave, checked.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
    """
    return encoded("id", value)


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

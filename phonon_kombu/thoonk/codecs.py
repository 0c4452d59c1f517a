"""How items become bytes: text as it is, or Python data by a serializer of kombu's registry."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Protocol

from ..errors import ConfigurationError, ItemTooLarge, MalformedItem

#: Serializers whose input can run code: only where the program itself names them.
INSECURE = frozenset({"pickle", "yaml"})

#: Redis's limit for one value.
LARGEST_ITEM_BYTES = 512 * 1024 * 1024 - 1


class Codec(Protocol):
    """Turns items into bytes and back."""

    def encode(self, item: Any) -> bytes:
        """Raises :exc:`~phonon_kombu.errors.ConfigurationError` for what it cannot take."""

    def decode(self, data: bytes) -> Any:
        """Raises :exc:`~phonon_kombu.errors.MalformedItem` for what it cannot read."""


class Plain:
    """``str`` and ``bytes`` as they are; they come back as ``str``, or as ``bytes``."""

    def __init__(self, as_text: bool) -> None:
        self._as_text = as_text

    def encode(self, item: Any) -> bytes:
        try:
            data = item.encode("utf-8", "surrogateescape") if isinstance(item, str) else item
        except UnicodeEncodeError as error:
            raise ConfigurationError(f"an item that is no text: {error.reason}") from None
        if not isinstance(data, bytes):
            raise ConfigurationError(
                f"an item must be str or bytes, not {type(item).__name__}: serialise it first, or "
                "name a serializer where the feed is made"
            )
        return _small_enough(data)

    def decode(self, data: bytes) -> Any:
        return data.decode("utf-8", "surrogateescape") if self._as_text else data


class Serialized:
    """Python data by one serializer of kombu's registry; no other one is accepted back."""

    def __init__(self, name: str) -> None:
        # Only who serialises needs kombu.
        from kombu import serialization
        from kombu.exceptions import SerializerNotInstalled

        self.name = name
        self._kombu = serialization
        try:
            self._type, self._encoding, _ = serialization.dumps(0, serializer=name)
        except (SerializerNotInstalled, LookupError):
            raise ConfigurationError(f"serializer={name!r}: kombu's registry has none") from None

    def encode(self, item: Any) -> bytes:
        try:
            data = self._kombu.dumps(item, serializer=self.name)[2]
            data = data.encode() if isinstance(data, str) else data
        except Exception as error:
            raise ConfigurationError(
                f"an item ({type(item).__name__}) that {self.name} cannot serialise: {error}"
            ) from None
        return _small_enough(data)

    def decode(self, data: bytes) -> Any:
        try:
            return self._kombu.loads(data, self._type, self._encoding, accept={self._type})
        except Exception as error:
            raise MalformedItem(f"an item that is no {self.name}: {error}", data) from None


def _small_enough(data: bytes) -> bytes:
    if len(data) > LARGEST_ITEM_BYTES:
        raise ItemTooLarge(
            f"an item of {len(data)} bytes: Redis takes at most {LARGEST_ITEM_BYTES} in one "
            "value. Keep large data elsewhere and put its address"
        )
    return data


@lru_cache(maxsize=64)
def serialized(name: str) -> Serialized:
    """The codec of a serializer.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError` if kombu knows none of this name.
    """
    return Serialized(name)


#: Text and bytes by the session's `decode`.
PLAIN = {as_text: Plain(as_text) for as_text in (True, False)}

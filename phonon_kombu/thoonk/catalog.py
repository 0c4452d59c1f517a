"""The feeds of a database: made, found, configured and deleted. For both kinds of session."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any, TypeVar

from ..errors import ConfigurationError, FeedNotFound
from ..store.checks import (
    THOONK_ROOMS,
    rights_question,
    rights_suffice,
    server_checks,
    server_is_served,
)
from ..store.keys import channel, feed_keys, feed_name, feeds_key, layout_key, wire_name
from ..store.scripts import load
from .base import Base, encoded, text
from .codecs import INSECURE, PLAIN, Codec, serialized
from .steps import Send, Steps, once

F = TypeVar("F", bound=Base)

#: Names of one slice of the set of all feeds.
SLICE = 500

#: What Thoonk.py calls a type -> what it is called in a feed's configuration.
ALIASES = {"list": "sorted_feed"}

#: Kind of a notice about a feed as a whole -> the script that announces it.
ANNOUNCED = {"create": "feed/create", "delete": "feed/delete", "config": "feed/configure"}

Config = Mapping[str, Any] | str


class Catalog:
    """Attributes:
    prefix, hash_tags, decode: as given.
    instance: an id of this session, which stands in its notices about feeds as a whole.
    link: the connection for commands.
    """

    def __init__(self, prefix: str, hash_tags: bool, decode: bool, kinds: Mapping[str, Any]):
        self.prefix = prefix
        self.hash_tags = hash_tags
        self.decode = decode
        self.instance = uuid.uuid4().hex
        self.link: Any = None
        self._kinds = dict(kinds)
        self._checked = False
        self._feeds: dict[tuple[type[Base], str], Base] = {}
        self._codecs: dict[str, Codec] = {}

    @property
    def _session(self) -> Any:
        return self

    def forget(self, name: str) -> None:
        """The feed `name` is gone: who asks for it next makes it anew."""
        for kind, known in list(self._feeds):
            if known == name:
                self._feeds.pop((kind, known), None)
        self._codecs.pop(name, None)

    def codec_of(self, name: str) -> Codec:
        """How the items of a feed are read: by its serializer if this session has opened it."""
        return self._codecs.get(name) or PLAIN[self.decode]

    def _register_feedtype(self, feedtype: str, kind: type[Base], owner: type) -> None:
        if not isinstance(kind, type) or not issubclass(kind, Base):
            raise ConfigurationError(f"{kind!r} is no class of feeds: derive it from one of ours")
        if not feedtype.isidentifier() or feedtype.startswith("_") or hasattr(owner, feedtype):
            raise ConfigurationError(f"a feed type cannot be called {feedtype!r}")
        if feedtype != kind.TYPE:
            kind = type(kind.__name__, (kind,), {"TYPE": feedtype, "__doc__": kind.__doc__})
        self._kinds[feedtype] = kind

    # Making and finding ----------------------------------------------------------------------

    def _open(
        self, kind: type[F], name: str, config: Config | None = None, **options: Any
    ) -> Steps[F]:
        """The feed `name`, made if there is none; configured if `config` says anything."""
        found = self._feeds.get((kind, checked(name)))
        given = {option: value for option, value in options.items() if value is not None}
        if found is None or config or given:
            fields = _fields(config)
            if fields.get("type", kind.TYPE.encode()) != kind.TYPE.encode():
                raise ConfigurationError(f"type={text(fields['type'])!r}: it is a {kind.TYPE}")
            new, *now = yield from self._make(kind, name, fields, given)
            if now[0] != kind.TYPE:
                raise ConfigurationError(
                    f"{name!r} is a feed of the type {now[0]!r}, not {kind.TYPE!r}"
                )
            if not new and fields:
                yield from self._set_config(name, config or {})
            # Of two threads that come here together, both get the object of the first.
            made = kind(self, name, **_options(kind, name, given, *now[1:]))
            found = self._feeds.setdefault((kind, name), made)
            self._codecs[name] = found._codec
        assert isinstance(found, kind)
        return found

    def _make(
        self,
        kind: type[Base],
        name: str,
        fields: Mapping[str, bytes],
        given: Mapping[str, Any],
        exclusive: bool = False,
    ) -> Steps[list[Any]]:
        """Whether it is new; its type, order and serializer."""
        if not self._checked:
            questions = (
                *server_checks(layout_key(self.prefix)),
                rights_question(self.prefix, THOONK_ROOMS),
            )
            *replies, rights = yield Send(*questions, refusals=True)
            server_is_served(replies, layout_key(self.prefix))
            rights_suffice(rights)
            self._checked = True
        settings = _limited(kind, fields)
        settings.pop("type", None)
        serializer = given.get("serializer", kind.DEFAULT_SERIALIZER)
        if serializer:
            settings.setdefault("serializer", encoded("serializer", serializer))
        if settings.get("serializer"):
            serialized(text(settings["serializer"]))  # a feed that nobody can open is not made
        if hasattr(kind, "ORDERS"):
            settings["order"] = kind.ORDERS[bool(given.get("interop"))]
        listed = (b"SADD", feeds_key(self.prefix), name.encode("utf-8", "surrogateescape"))
        made = self._announced(
            "create", name, b"1" if exclusive else b"", kind.TYPE.encode(), fields=settings
        )
        # Again behind it: who is deleting one of this name may just have taken it off the list.
        _, reply, _ = yield Send(listed, made, listed)
        return [reply[0], *map(text, reply[1:])]

    def _announced(
        self, kind: str, name: str, *more: bytes, fields: Mapping[str, bytes] = {}
    ) -> tuple[Any, Any]:
        """A call of a script about a feed as a whole: channel, message, `more`, then fields."""
        message = wire_name(name, self.hash_tags) + b"\0" + self.instance.encode()
        pairs = [part for field, value in fields.items() for part in (field.encode(), value)]
        keys = feed_keys(name, self.prefix, self.hash_tags)
        return (
            load(ANNOUNCED[kind]).prepare(keys),
            (channel(kind, prefix=self.prefix), message, *more, *pairs),
        )

    def _create_feed(self, name: str, config: Config | None = None) -> Steps[None]:
        """Make a feed: ``create_feed("news", {"max_length": 50})``.

        Arguments:
            config: a dictionary or a JSON object. `type`: ``feed`` (default), ``sorted_feed``,
                ``queue``, ``pyqueue``, ``job`` or a registered one; `max_length`: how many
                items a feed keeps, or how many ready jobs a job feed does, the oldest go (0: all;
                queues keep all); `serializer`; whatever else you want to keep with it.

        Raises :exc:`~phonon_kombu.errors.FeedExists`,
        :exc:`~phonon_kombu.errors.ConfigurationError`.
        """
        fields = _fields(config)
        named = text(fields.pop("type", b"feed"))
        kind = self._kinds.get(ALIASES.get(named, named))
        if kind is None:
            raise ConfigurationError(f"type={named!r}: it must be one of {', '.join(self._kinds)}")
        yield from self._make(kind, checked(name), fields, {}, exclusive=True)

    def _delete_feed(self, name: str) -> Steps[None]:
        """Delete a feed of whatever type, with all that is in it.

        Results of its jobs stay for as long as they were to be kept.

        Raises :exc:`~phonon_kombu.errors.FeedNotFound`.
        """
        wire = wire_name(checked(name), self.hash_tags)
        gone = self._announced("delete", name)
        listed, ours = feeds_key(self.prefix), name.encode("utf-8", "surrogateescape")
        known = [feed for (_, opened), feed in list(self._feeds.items()) if opened == name]
        self.forget(name)
        yield from once(gone, FeedNotFound)
        for feed in known:
            yield from feed._deleted()
        # Also as a peer has written it.
        yield Send((b"SREM", listed, wire, ours))
        if (yield from self._feed_exists(name)):
            yield Send((b"SADD", listed, ours))  # somebody has made it meanwhile

    # Configuration ---------------------------------------------------------------------------

    def _set_config(self, name: str, config: Config) -> Steps[None]:
        """Change the configuration of a feed; what `config` does not name stays.

        A smaller `max_length` retracts the oldest items at once.

        Arguments:
            config: a dictionary or a JSON object, as in :meth:`create_feed`. What decides how
                items are kept (`type`, `serializer`) cannot be changed any more.

        Raises :exc:`~phonon_kombu.errors.FeedNotFound`,
        :exc:`~phonon_kombu.errors.ConfigurationError`.
        """
        fields = _fields(config)
        if not fields:
            raise ConfigurationError("an empty configuration")
        kind = self._kinds.get((yield from self._get_config(name))["type"], Base)
        yield Send(self._announced("config", name, fields=_limited(kind, fields)))
        if "max_length" in fields and kind.TRIMMED:
            yield from trim(self, name)

    def _get_config(self, name: str) -> Steps[dict[str, Any]]:
        """The configuration of a feed: `type`, and what else was set. `max_length` is a number.

        Raises :exc:`~phonon_kombu.errors.FeedNotFound`.
        """
        keys = feed_keys(checked(name), self.prefix, self.hash_tags)
        (reply,) = yield Send((b"HGETALL", keys.config))
        found: dict[str, Any] = {
            text(field): text(value) for field, value in zip(reply[::2], reply[1::2], strict=True)
        }
        if "type" not in found:
            raise FeedNotFound(f"there is no feed called {name!r}")
        if _is_number(found.get("max_length", "x") or "0"):
            found["max_length"] = int(found["max_length"] or 0)
        return found

    def _feed_exists(self, name: str) -> Steps[bool]:
        """Whether there is a feed of this name, of whatever type."""
        keys = feed_keys(checked(name), self.prefix, self.hash_tags)
        (reply,) = yield Send((b"HEXISTS", keys.config, b"type"))
        return bool(reply)

    def _get_feeds(self) -> Steps[set[str]]:
        """The names of all feeds, also of those that peers have made."""
        found: set[str] = set()
        cursor = b"0"
        while True:
            ((cursor, names),) = yield Send(
                (b"SSCAN", feeds_key(self.prefix), cursor, b"COUNT", b"%d" % SLICE)
            )
            for listed in names:
                theirs = feed_name(listed, self.hash_tags)
                if theirs in (None, text(listed)):
                    found.add(text(listed))
                else:
                    found.update((yield from self._either(text(listed), str(theirs))))
            if cursor == b"0":
                return found

    def _either(self, ours: str, theirs: str) -> Steps[list[str]]:
        """Which feed is meant by a name in braces: ours of that name, or a peer's without them."""
        both = (ours, theirs)
        keys = [feed_keys(name, self.prefix, self.hash_tags) for name in both]
        there = yield Send(*((b"HEXISTS", key.config, b"type") for key in keys))
        return [name for name, exists in zip(both, there, strict=True) if exists] or [theirs]


def trim(session: Any, name: str) -> Steps[None]:
    """Retract what is too much in a feed, in slices."""
    keys = feed_keys(name, session.prefix, session.hash_tags)
    retract = channel("retract", wire_name(name, session.hash_tags), session.prefix)
    call = (load("feed/trim").prepare(keys), (retract,))
    while (yield Send(call))[0]:
        pass


def checked(name: Any) -> str:
    """The name of a feed that a caller gave.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
    """
    encoded("name of a feed", name)
    return str(name)


def _limited(kind: type[Base], fields: Mapping[str, bytes]) -> dict[str, bytes]:
    """A configuration as feeds of this type read it: a queue takes a limit of 0 at its word."""
    written = dict(fields)
    if not kind.TRIMMED and not int(fields.get("max_length") or 1):
        written["max_length"] = b""
    return written


def _is_number(value: str) -> bool:
    """In the digits that Redis knows."""
    return value.isascii() and value.isdecimal()


def _fields(config: Config | None) -> dict[str, bytes]:
    """A configuration as it is written; values other than text as JSON."""
    if isinstance(config, str):
        try:
            config = json.loads(config)
        except ValueError as error:
            raise ConfigurationError(f"a configuration that is no JSON: {error}") from None
    if config is not None and not isinstance(config, Mapping):
        raise ConfigurationError("a configuration is a dictionary or a JSON object")
    fields = {}
    for name, value in (config or {}).items():
        if not isinstance(name, str) or name == "order":
            raise ConfigurationError(f"{name!r} in a configuration")
        if name == "max_length" and not _is_number(str(value)):
            raise ConfigurationError(f"max_length={value!r}: it must be a number, 0 for no limit")
        try:
            name.encode()
            written = value if isinstance(value, str) else json.dumps(value)
            fields[name] = written.encode("utf-8", "surrogateescape")
        except (TypeError, ValueError):
            raise ConfigurationError(f"{name!r}: {value!r}: it must be plain data") from None
    return fields


def _options(
    kind: type[Base], name: str, given: Mapping[str, Any], order: str, serializer: str
) -> dict[str, Any]:
    """What a feed's object is made with: what is given, held against what the feed is."""
    wanted = given.get("serializer")
    if not serializer and kind.DEFAULT_SERIALIZER:
        # A client of Thoonk's contract has made it, and does not say. Thoonk.py pickles.
        serializer = wanted or kind.DEFAULT_SERIALIZER
    if wanted is not None and wanted != (serializer or None):
        raise ConfigurationError(f"{name!r} has the serializer {serializer!r}, not {wanted!r}")
    if serializer in INSECURE and wanted is None:
        raise ConfigurationError(
            f"{name!r} has the serializer {serializer!r}, and whoever can write to this Redis "
            f"could run code here: name it, serializer={serializer!r}, if you trust them all"
        )
    options: dict[str, Any] = {"serializer": serializer or None}
    if hasattr(kind, "ORDERS"):
        # One that a client of Thoonk's contract has made says nothing about it.
        interop = order.encode() != kind.ORDERS[False]
        if given.get("interop", interop) != interop:
            raise ConfigurationError(
                f"{name!r} was made with interop={interop}: that cannot be changed"
            )
        options["interop"] = interop
    return options

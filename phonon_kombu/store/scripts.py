"""Loads the Lua scripts and turns calls by name into packed commands.

A script's header is its contract, and this module reads it: ``KEYS`` names the keys in their
order and ``ARGV`` the arguments, so that Python passes both by name and a test can hold code, docs
and script against each other. ``--- @include NAME`` is replaced by ``include/NAME.lua``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from ..errors import ConfigurationError

_HEADER = re.compile(r"\A--\[\[ (?P<name>[\w/]+)[:(](?P<text>.*?)\]\]", re.S)
_INCLUDE = re.compile(r"^ *--- @include (\w+)$", re.M)
_SECTION = re.compile(r"^(KEYS|ARGV|RETURNS|ERRORS|STATES|COST)\s+", re.M)
_KEY = re.compile(r"(\d+)(\+?) (\w+)(?: (STRING|LIST|HASH|SET|ZSET))?(?: \(|\s|$)")
_ARG = re.compile(r"(?:^|\s{2,})(\d+)(\+?) (\w+)")
_COMMENT = re.compile(
    r"""(?P<string>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|(?<!--)\[\[.*?\]\])"""
    r"""|--\[\[.*?\]\]|--[^\n]*""",
    re.S,
)
_CALL = re.compile(r"redis\.p?call\(([^,)]*)")
_QUOTED = re.compile(r"'([A-Z]{3,})'")
_WORD = re.compile(r"\b[A-Z]{4,}\b")

#: Names in a header that stand for a whole tuple of keys of :class:`~.keys.QueueKeys`,
#: :class:`~.phonon_keys.RecordKeys` or :class:`~.phonon_keys.ChordKeys`.
MANY = {"levels": "levels", "parts": "all", "collections": "collections", "fields": "fields"}


@dataclass(frozen=True)
class Script:
    """One Lua script with its contract.

    `keys` and `args` are the names in the header's order; `many_keys` and `many_args` tell
    whether the last of them stands for any number.
    """

    name: str
    source: bytes
    sha: str
    keys: tuple[str, ...]
    many_keys: bool
    args: tuple[str, ...]
    many_args: bool
    errors: frozenset[str]
    sections: dict[str, str]

    def key_list(self, keys: Any, **given: bytes) -> list[bytes]:
        """The script's keys in order: attributes of `keys`, or `given` by name."""
        found: list[bytes] = []
        for name in self.keys:
            if name in MANY and name not in given:
                found.extend(getattr(keys, MANY[name]))
            else:
                found.append(given[name] if name in given else getattr(keys, name))
        return found

    def prepare(self, keys: Any, **given: bytes) -> Prepared:
        """A packer of calls of this script on these keys."""
        return Prepared(self, self.key_list(keys, **given))


class Prepared:
    """A script on fixed keys. :meth:`pack` adds the arguments to what is packed already.

    Packing once what never changes is what makes a call cheap: a claim names twenty keys.
    """

    __slots__ = ("script", "keys", "note", "_head", "_fixed")

    def __init__(self, script: Script, keys: list[bytes]) -> None:
        #: What its maker wants to remember.
        self.note: Any = None
        self.script = script
        self.keys = keys
        fixed: list[bytes] = [b"EVALSHA", script.sha.encode(), b"%d" % len(keys), *keys]
        self._fixed = len(fixed)
        self._head = b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in fixed)

    def pack(self, args: Iterable[bytes]) -> bytes:
        """One EVALSHA command in Redis's protocol."""
        parts = [b"$%d\r\n%b\r\n" % (len(arg), arg) for arg in args]
        return b"*%d\r\n%b%b" % (self._fixed + len(parts), self._head, b"".join(parts))


def pack_command(*args: bytes) -> bytes:
    """Any command in Redis's protocol."""
    return b"*%d\r\n%b" % (len(args), b"".join(b"$%d\r\n%b\r\n" % (len(a), a) for a in args))


def parse(name: str, text: str, include: Any) -> Script:
    """Make a :class:`Script` of the file `text`, `include(name)` giving the shared pieces.

    Raises :exc:`ConfigurationError` where a header is missing or wrong.
    """
    header = _HEADER.match(text)
    if header is None or header["name"] != name:
        raise ConfigurationError(f"script {name}: the file does not begin with its header")
    sections = _sections(header["text"])
    keys, many_keys = _numbered(name, "KEYS", _KEY.findall(sections.get("KEYS", "")))
    args, many_args = _numbered(name, "ARGV", _ARG.findall("  " + sections.get("ARGV", "")))
    source = _strip(_expand(name, text, include, ())).encode()
    return Script(
        name=name,
        source=source,
        sha=hashlib.sha1(source, usedforsecurity=False).hexdigest(),
        keys=keys,
        many_keys=many_keys,
        args=args,
        many_args=many_args,
        errors=frozenset(_WORD.findall(sections.get("ERRORS", ""))),
        sections=sections,
    )


def _sections(text: str) -> dict[str, str]:
    # Several sections may share a line ("RETURNS id   ERRORS none").
    text = re.sub(r"\s{2,}(?=(?:KEYS|ARGV|RETURNS|ERRORS|STATES|COST)\s)", "\n", text)
    pieces = _SECTION.split(text)
    return {
        pieces[i]: re.sub(r"\n\s+", "   ", pieces[i + 1]).strip()
        for i in range(1, len(pieces) - 1, 2)
    }


def _numbered(
    name: str, section: str, found: list[tuple[str, ...]]
) -> tuple[tuple[str, ...], bool]:
    for position, (number, many, *_) in enumerate(found, 1):
        if int(number) != position or (many and position != len(found)):
            raise ConfigurationError(f"script {name}: {section} are not numbered in order")
    return tuple(entry[2] for entry in found), bool(found and found[-1][1])


def _expand(name: str, text: str, include: Any, seen: tuple[str, ...]) -> str:
    def replace(match: re.Match[str]) -> str:
        piece = match[1]
        if piece in seen:
            raise ConfigurationError(f"script {name}: include {piece} includes itself")
        try:
            body = include(piece)
        except FileNotFoundError:
            raise ConfigurationError(f"script {name}: no include named {piece}") from None
        return _expand(name, body, include, (*seen, piece)).rstrip("\n")

    pieces = _INCLUDE.findall(text)
    if len(pieces) != len(set(pieces)):
        raise ConfigurationError(f"script {name}: the same piece is included twice")
    return _INCLUDE.sub(replace, text)


def _strip(text: str) -> str:
    """Leave out the comments: the server need not keep them."""
    text = _COMMENT.sub(lambda match: match["string"] or "", text)
    return "\n".join(line.rstrip() for line in text.splitlines() if line.strip()) + "\n"


@cache
def load(name: str) -> Script:
    """The script `name`, such as ``job/claim``, from the files that the package ships.

    Raises :exc:`ConfigurationError` if there is no such script.
    """
    lua = files(__package__).joinpath("lua")

    def include(piece: str) -> str:
        return (lua / "include" / f"{piece}.lua").read_text("utf-8")

    try:
        text = lua.joinpath(f"{name}.lua").read_text("utf-8")
    except FileNotFoundError:
        raise ConfigurationError(f"no script named {name}: is the package complete?") from None
    return parse(name, text, include)


@cache
def commands(*rooms: str) -> tuple[str, ...]:
    """All commands of Redis that the scripts of these rooms (default: of all) call, sorted."""
    called = (
        call
        for name in names()
        if not rooms or name.partition("/")[0] in rooms
        for call in _CALL.findall(load(name).source.decode())
    )
    return tuple(sorted({word for call in called for word in _QUOTED.findall(call)}))


def names() -> list[str]:
    """Names of all scripts, sorted."""
    lua = files(__package__).joinpath("lua")
    return sorted(
        f"{room.name}/{file.name[:-4]}"
        for room in lua.iterdir()
        if room.is_dir() and room.name != "include"
        for file in room.iterdir()
        if file.name.endswith(".lua")
    )

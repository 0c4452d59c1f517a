"""May we work with this server? Its version, the layout of its data, the rights of our user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .. import errors
from .client import CONNECTION_ERRORS, Link
from .keys import NodeKeys
from .scripts import Prepared, commands, load

#: The oldest server that has all commands we use (ZADD/HRANDFIELD era: LMOVE, ZMSCORE, RPOP n).
OLDEST_SERVER = (6, 2)

#: Version of the key layout. It grows when an older release could no longer read the data.
LAYOUT = 1


def check_server(link: Link, layout_key: bytes) -> None:
    """See that the server is new enough and its data of a layout that we can read.

    Raises :exc:`~phonon_kombu.errors.ServerTooOld`, :exc:`~phonon_kombu.errors.LayoutMismatch`.
    """
    server_is_served(
        link.send(server_checks(layout_key), repeat=True, raise_first=False), layout_key
    )


def server_checks(layout_key: bytes) -> Sequence[tuple[bytes, ...]]:
    """The commands that tell what :func:`server_is_served` wants to know."""
    layout = b"%d" % LAYOUT
    return ((b"INFO", b"server"), (b"SET", layout_key, layout, b"NX"), (b"GET", layout_key))


def server_is_served(replies: Sequence[Any], layout_key: bytes) -> None:
    """Judge the replies (or refusals) to :func:`server_checks`. Raises as :func:`check_server`."""
    info, _, found = replies
    layout = b"%d" % LAYOUT
    # A replica that refuses the SET is as good as away: whoever connects tries again, patiently,
    # where a consumer would break, connect, and break again.
    for reply in replies:
        if isinstance(reply, CONNECTION_ERRORS):
            raise reply
    # Where an ACL hides INFO the commands themselves will tell.
    if not isinstance(info, Exception):
        version = server_version(info)
        if version and version < OLDEST_SERVER:
            raise errors.ServerTooOld(
                f"this server is Redis {'.'.join(map(str, version))}; phonon_kombu needs Redis "
                f"{'.'.join(map(str, OLDEST_SERVER))} or newer, or Valkey"
            )
    if isinstance(found, Exception):
        raise found
    if found is not None and found != layout:
        raise errors.LayoutMismatch(
            f"the key {layout_key.decode()} says that this database has layout "
            f"{_text(found)}, and this release of phonon_kombu reads layout {LAYOUT}: upgrade "
            "it, or use another database or global_keyprefix"
        )


#: The rooms of scripts that the transport uses, and Thoonk beside them.
TRANSPORT_ROOMS = ("exchange", "job", "lock", "node")
THOONK_ROOMS = (*TRANSPORT_ROOMS, "feed", "queue", "sorted_feed")


def check_rights(link: Link, prefix: str = "", rooms: Sequence[str] = TRANSPORT_ROOMS) -> None:
    """See that the user may call in scripts what the scripts of these `rooms` call.

    A script that is refused half way leaves its work half done: a job in no state.

    Raises :exc:`~phonon_kombu.errors.ScriptRefused`.
    """
    question = rights_question(prefix, rooms)
    rights_suffice(link.send((question,), repeat=True, raise_first=False)[0])


def rights_question(prefix: str, rooms: Sequence[str]) -> tuple[Prepared, list[bytes]]:
    """The call that tells what :func:`rights_suffice` wants to know."""
    probe = load("node/probe").prepare(NodeKeys(prefix))
    return probe, [command.encode() for command in commands(*rooms)]


def rights_suffice(reply: Any) -> None:
    """Judge the reply (or refusal) to :func:`rights_question`. Raises as :func:`check_rights`."""
    if isinstance(reply, errors.ServerError):
        if isinstance(reply, errors.ScriptRefused):
            raise reply
        return  # out of memory, or busy: that is said when something is to be done
    if isinstance(reply, Exception):
        raise reply
    if reply:
        raise errors.ScriptRefused(
            "the server's ACL forbids this user commands that scripts need: "
            f"{', '.join(map(_text, reply))} (docs/howto/acl.md has the rules)"
        )


def server_version(info: Any) -> tuple[int, ...] | None:
    """(major, minor) out of INFO's text; None if it does not say."""
    for line in _text(info).splitlines():
        if line.startswith("redis_version:"):
            numbers = line.split(":", 1)[1].strip().split(".")
            return tuple(int(n) for n in numbers[:2] if n.isdigit())
    return None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

"""Publisher confirms: a publish that returns only when the message is safe enough."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigurationError, NotConfirmed

#: Default of `confirm_timeout_ms`.
TIMEOUT_MS = 5000

#: More than any server has, and all that WAIT can hold.
MOST_REPLICAS = 2**31 - 1

#: A longer wait would look like a server that fell silent.
LONGEST_TIMEOUT_MS = 25_000


class Confirm:
    """What a publish must reach, and the command that waits for it.

    Arguments:
        wanted: the option `confirm_publish`: True or ``"local"``, the server has written it to
            its append-only file and synced that; a number, so many replicas have it in memory.
        replicas: `confirm_replicas`: with ``"local"``, so many replicas have synced it too.
        timeout_ms: `confirm_timeout_ms`.
    """

    def __init__(self, wanted: Any, replicas: int, timeout_ms: int) -> None:
        self.local = wanted is True or wanted == "local"
        self.replicas = replicas if self.local else int(wanted)
        self.timeout_ms = timeout_ms
        numbers = (self.replicas, timeout_ms)
        self.command: tuple[bytes, ...] = (
            (b"WAITAOF", b"1", *(b"%d" % n for n in numbers))
            if self.local
            else (b"WAIT", *(b"%d" % n for n in numbers))
        )

    def check(self, reply: Any) -> None:
        """Raises :exc:`~phonon_kombu.errors.NotConfirmed` if the reply says too little."""
        if isinstance(reply, Exception):
            raise NotConfirmed(
                f"the server cannot confirm: {reply}. Local confirms need Redis 7.2 and "
                "appendonly yes"
            ) from reply
        local, replicas = reply if self.local else (1, reply)
        if local < 1 or replicas < self.replicas:
            raise NotConfirmed(
                f"not confirmed within {self.timeout_ms} ms: "
                + ("" if local else "not synced to the server's disk, ")
                + f"{replicas} of {self.replicas} replicas. The message may arrive all the same; "
                "publishing it again does not put it twice"
            )


def make(wanted: Any, replicas: int, timeout_ms: int) -> Confirm | None:
    """The :class:`Confirm` for these options, None where none is asked for."""
    return Confirm(wanted, replicas, timeout_ms) if wanted else None


def check_options(given: Mapping[str, Any]) -> None:
    """Raises :exc:`~phonon_kombu.errors.ConfigurationError` for values that make no sense."""
    wanted = given.get("confirm_publish", False)
    number = isinstance(wanted, int) and not isinstance(wanted, bool)
    if not (wanted is None or isinstance(wanted, bool) or wanted == "local" or number) or (
        number and not 0 <= wanted <= MOST_REPLICAS
    ):
        raise ConfigurationError(
            f"transport option confirm_publish={wanted!r}: it must be True, 'local' or a number "
            "of replicas"
        )
    replicas = given.get("confirm_replicas", 0)
    if (
        isinstance(replicas, bool)
        or not isinstance(replicas, int)
        or not (0 <= replicas <= MOST_REPLICAS)
    ):
        raise ConfigurationError(
            f"transport option confirm_replicas={replicas!r}: it must be a number, 0 or more"
        )
    if replicas and not (wanted is True or wanted == "local"):
        raise ConfigurationError(
            "transport option confirm_replicas goes with confirm_publish='local'; for replicas "
            "alone give their number as confirm_publish"
        )
    timeout = given.get("confirm_timeout_ms", TIMEOUT_MS)
    if (
        isinstance(timeout, bool)
        or not isinstance(timeout, int)
        or not 0 < timeout <= LONGEST_TIMEOUT_MS
    ):
        raise ConfigurationError(
            f"transport option confirm_timeout_ms={timeout!r}: it must be a number from 1 to "
            f"{LONGEST_TIMEOUT_MS}"
        )

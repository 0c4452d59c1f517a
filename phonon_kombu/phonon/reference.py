"""References: who uses a resource, and the last one out does what is to be done in the end.

::

    def write_out(reference):
        print(reference.name, "was worked on", reference.times_modified(), "times")

    with Reference("report:7", on_last=write_out):
        ...                                     # an exception cancels, else it is finished

The holders are the count: there is no counter beside them that could drift. A holder belongs to a
process with a heartbeat; what a dead process held is given back by the living who have used the
same resource, and one of them is the last one out then.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ..errors import ConfigurationError, NotHeld
from ..store.client import CONNECTION_ERRORS
from ..store.keys import NodeKeys
from ..store.phonon_keys import ReferenceKeys
from ..store.scripts import load
from .arguments import checked_name
from .connections import Connections, current
from .node import node_id
from .watch import watch

logger = logging.getLogger("phonon_kombu.phonon")

#: How long the last one out may take before another takes it for dead, seconds. Its heartbeat
#: does not count here: extend it by `lease_seconds` where the callback takes longer.
LEASE_SECONDS = 30.0


class Reference:
    """One holder's reference to a resource. Safe between threads.

    Arguments:
        name: of the resource, any text.
        on_last: called with the reference by the last one out. If its process dies in it, another
            one that has `on_last` calls it after `lease_seconds`: at least once, and once where
            nobody dies.
        holder: the name of this hold, by default a random one. A task's id as the holder makes a
            redelivered task hold once.
        lease_seconds: how long `on_last` may take.
        connections: where it lives; by default what :func:`.connections.connect` connected.

    A context manager: it holds, and at the end finishes, or cancels if the block has raised.

    Redis keys:
        <prefix>reference.holders:{<name>}: HASH, holder -> the node on which it holds.
        <prefix>reference.stalled:{<name>}: HASH, holder -> why it is stalled.
        <prefix>reference.about:{<name>}: HASH, ``modified``, and of the last one out ``closer`` and
            ``until``, ms.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`; every method raises redis-py's
    ``ConnectionError`` and ``TimeoutError`` when the server is away.
    """

    def __init__(
        self,
        name: str,
        on_last: Callable[[Reference], Any] | None = None,
        *,
        holder: str | None = None,
        lease_seconds: float = LEASE_SECONDS,
        connections: Connections | None = None,
    ) -> None:
        if not lease_seconds > 0:
            raise ConfigurationError(f"lease_seconds={lease_seconds!r}: it must be positive")
        self.name = checked_name(name)
        self.on_last = on_last
        self.holder = secrets.token_hex(8) if holder in (None, "") else checked_name(holder)
        self._lease = b"%d" % (lease_seconds * 1000)
        self._token = secrets.token_hex(16).encode()
        self._connections = current() if connections is None else connections
        self._host = self._connections.host_of(name)
        self._keys = ReferenceKeys(name, self._connections.prefix)
        self._beats = NodeKeys(self._connections.prefix).beats

    def __repr__(self) -> str:
        return f"<Reference {self.name!r} of {self.holder}>"

    @property
    def _node(self) -> bytes:
        return node_id(self._host.identity).encode()

    def _run(self, script: str, *args: bytes) -> Any:
        return self._host.link.run(load(script).prepare(self._keys), args)

    # Holding and letting go ----------------------------------------------------------------

    def hold(self) -> int:
        """Use the resource from now on; returns how many do.

        Raises :exc:`~phonon_kombu.errors.Closing` while the last one out is at work.
        """
        self._host.live()
        return int(self._run("reference/hold", self.holder.encode(), self._node))

    def finish(self) -> bool:
        """This holder has done its part. Whether it was the last one out (`on_last` has run).

        Raises :exc:`~phonon_kombu.errors.NotHeld`: it does not hold, or its process was taken for
        dead and its hold given back.
        """
        return self._leave("reference/finish")

    def cancel(self) -> bool:
        """This holder leaves with its part undone; in all else as :meth:`finish`."""
        return self._leave("reference/cancel")

    def _leave(self, script: str) -> bool:
        args = (self.holder.encode(), self._node, self._token, self._lease)
        call = ((load(script).prepare(self._keys), args),)
        try:
            last = bool(self._host.link.send(call)[0])
        except CONNECTION_ERRORS:
            # It may have been done, and its reply lost.
            try:
                last = bool(self._host.link.send(call)[0])
            except NotHeld:
                last = False
        if last:
            try:
                self._complete()
            except BaseException:
                watch(self, self._host)  # and call it again when the lease has ended
                raise
        elif self.on_last is not None:
            watch(self, self._host)
        return last

    def stall(self, reason: str) -> None:
        """This holder cannot go on: it keeps its hold until somebody calls :meth:`retry`, also
        when its process dies. Raises :exc:`~phonon_kombu.errors.NotHeld`."""
        self._run("reference/stall", self.holder.encode(), self._node, reason.encode())

    def retry(self) -> None:
        """The stalled holder of this name goes on, in this process.

        Raises :exc:`~phonon_kombu.errors.NotStalled`.
        """
        self._host.live()
        self._run("reference/retry", self.holder.encode(), self._node)

    def __enter__(self) -> Reference:
        self.hold()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish()
        else:
            self.cancel()

    # Looking -------------------------------------------------------------------------------

    def count(self) -> int:
        """How many hold it, stalled ones among them."""
        return sum(
            self._host.link.send(
                ((b"HLEN", self._keys.holders), (b"HLEN", self._keys.stalled)), repeat=True
            )
        )

    def times_modified(self) -> int:
        """How often it was finished since it was last free."""
        return int(self._host.link.command(b"HGET", self._keys.about, b"modified") or 0)

    def stalled(self) -> dict[str, str]:
        """The stalled holders and why they are."""
        flat = self._host.link.command(b"HGETALL", self._keys.stalled)
        return {
            holder.decode(): reason.decode()
            for holder, reason in zip(flat[::2], flat[1::2], strict=True)
        }

    # The last one out ----------------------------------------------------------------------

    def maintain(self) -> bool:
        """Give back what dead processes hold, and do what a dead closer has left undone.

        Those who have used the resource do this by themselves until it is free. Returns whether
        it is free now.
        """
        link = self._host.link
        held = link.command(b"HVALS", self._keys.holders)
        nodes = [node for node in dict.fromkeys(held) if node != self._node]
        beats = link.command(b"ZMSCORE", self._beats, *nodes) if nodes else []
        for node, beat in zip(nodes, beats, strict=True):
            if beat is None and self._give_back(node):
                self._complete()
                return True
        left = self._run("reference/lease", self._token, self._lease) if not held else 1
        if left == 0:
            self._complete()
            return True
        return left < 0 and self.count() == 0

    def _give_back(self, node: bytes) -> bool:
        """Give back what `node` holds; whether nobody is left and we are the last one out."""
        cursor, given, last = b"0", 0, 0
        while True:
            cursor, some, now_last = self._run(
                "reference/recover", node, cursor, self._token, self._lease
            )
            given, last = given + some, last or now_last
            if cursor == b"0":
                break
        logger.warning("%r: gave back %d hold(s) of the dead node %s", self, given, node.decode())
        return bool(last)

    def _complete(self) -> None:
        if self.on_last is not None:
            self.on_last(self)
        self._run("reference/close", self._token)

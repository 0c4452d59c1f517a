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
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ..errors import Closing, ConfigurationError, NotHeld
from ..store.client import CONNECTION_ERRORS, fork_epoch
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
            one that has `on_last` calls it after `lease_seconds`, when it looks after what it has
            left or when it is to hold: at least once, and once where nobody dies.
        holder: the name of this hold, by default a random one, another one in a forked child. A
            task's id as the holder makes a redelivered task hold once.
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
        self._named = holder not in (None, "")
        if self._named:
            self.holder = checked_name(holder)
        self._lease_ms = b"%d" % (lease_seconds * 1000)
        self._renew()
        self._connections = current() if connections is None else connections
        self._host = self._connections.host_of(name)
        self._keys = ReferenceKeys(name, self._connections.prefix)
        self._beats = NodeKeys(self._connections.prefix).beats

    def __repr__(self) -> str:
        return f"<Reference {self.name!r} of {self.holder}>"

    def _renew(self) -> None:
        self._epoch = fork_epoch()
        if not self._named:
            self.holder = secrets.token_hex(8)
        self._token = secrets.token_hex(16).encode()
        #: Held by the thread that leaves or looks: one of them is enough to call `on_last`.
        self._ending = threading.RLock()
        self._calling = False
        #: Whether `on_last` has been called, and the resource perhaps not been freed.
        self._called = False

    def _mind_fork(self) -> None:
        """A forked child is another one: what the parent holds is the parent's."""
        if self._epoch != fork_epoch():
            self._renew()

    @property
    def owes(self) -> bool:
        """Whether `on_last` was called, and the resource is still to be freed."""
        return self._called

    @property
    def _node(self) -> bytes:
        return node_id(self._host.identity).encode()

    @property
    def _lease(self) -> bytes:
        """How long we may be the closer; where there is nothing to do we are none."""
        return b"" if self.on_last is None else self._lease_ms

    def _run(self, script: str, *args: bytes) -> Any:
        return self._host.link.run(load(script).prepare(self._keys), args)

    # Holding and letting go ----------------------------------------------------------------

    def hold(self) -> int:
        """Use the resource from now on; returns how many do.

        If the last one out has died at its work this does it first, and raises what `on_last`
        raises. Raises :exc:`~phonon_kombu.errors.Closing` while the last one out is at work, and
        without `on_last` also when it is dead: its work is left to those who know it.
        """
        self._mind_fork()
        self._host.live()
        try:
            return self._hold()
        except Closing:
            if self.on_last is None or not self._alone(lambda: self._take_over() <= 0):
                raise
        return self._hold()

    def _hold(self) -> int:
        count = int(self._run("reference/hold", self.holder.encode(), self._node))
        self._called = False  # it was free
        return count

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
        self._mind_fork()
        with self._ending:
            try:
                last = self._let_go(script)
            except NotHeld:
                raise
            except BaseException:
                # It may have been done, and we are the last one out and have not heard of it.
                self._watch()
                raise
            if not last:
                self._watch()
            elif self.on_last is not None:
                self._called = False
                self._complete()
        return last

    def _let_go(self, script: str) -> bool:
        args = (self.holder.encode(), self._node, self._token, self._lease)
        call = ((load(script).prepare(self._keys), args),)
        try:
            return bool(self._host.link.send(call)[0])
        except CONNECTION_ERRORS:
            # It may have been done, and its reply lost.
            try:
                return bool(self._host.link.send(call)[0])
            except NotHeld:
                return self.on_last is not None and self._closes() == 0

    def _watch(self) -> None:
        if self.on_last is not None:
            watch(self, self._host)

    def stall(self, reason: str) -> None:
        """This holder cannot go on: it keeps its hold until somebody calls :meth:`retry`, also
        when its process dies. Raises :exc:`~phonon_kombu.errors.NotHeld`."""
        self._run("reference/stall", self.holder.encode(), self._node, reason.encode())

    def retry(self) -> None:
        """The stalled holder of this name goes on, in this process.

        Raises :exc:`~phonon_kombu.errors.NotStalled`.
        """
        self._mind_fork()
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
        self._mind_fork()
        return self._alone(self._maintain)

    def _alone(self, look: Callable[[], bool]) -> bool:
        """Do `look`, unless another thread is at it, or leaves, or we are within `on_last`."""
        if not self._ending.acquire(blocking=False):
            return False
        try:
            return not self._calling and look()
        finally:
            self._ending.release()

    def _maintain(self) -> bool:
        link = self._host.link
        held = link.command(b"HVALS", self._keys.holders)
        nodes = [node for node in dict.fromkeys(held) if node != self._node]
        beats = link.command(b"ZMSCORE", self._beats, *nodes) if nodes else []
        for node, beat in zip(nodes, beats, strict=True):
            if beat is None and self._give_back(node):
                self._called = False
                self._complete()
                return True
        left = 1 if held else self._take_over()
        return left == 0 or (left < 0 and self.count() == 0)

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

    def _take_over(self) -> int:
        """Do what a closer has left undone, we or a dead one. Returns what :meth:`_closes` does."""
        if self._called:
            self._free()
        left = self._closes()
        if left == 0:
            self._complete()
        return left

    def _closes(self) -> int:
        """Become the closer if that is us or has died: 0; -1 if there is none; else ms to wait."""
        return int(self._run("reference/lease", self._token, self._lease_ms))

    def _complete(self) -> None:
        try:
            if self.on_last is not None:
                self._calling = True
                try:
                    self.on_last(self)
                finally:
                    self._calling = False
            self._called = True
            self._free()
        except BaseException:
            self._watch()  # and try again, or call it again
            raise

    def _free(self) -> None:
        self._run("reference/close", self._token)
        self._called = False

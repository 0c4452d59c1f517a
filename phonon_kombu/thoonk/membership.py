"""A session's server: its address, and being known there among the processes that hold jobs."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..phonon import heart, hearts
from ..phonon.node import node_id
from ..store import addresses
from ..store.client import Link
from ..store.keys import wire_name


class Membership:
    """Part of both kinds of session; a heart is a thread with a connection that blocks."""

    _pool: Any
    prefix: str
    hash_tags: bool

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address}>"

    @property
    def address(self) -> str:
        """Where the server is, for people to read; without credentials."""
        return addresses.address_of(self._pool)

    def listening_pool(self, patience_seconds: float) -> Any:
        """The pool for connections that listen for notices."""
        return addresses.impatient(self._pool, patience_seconds)

    @property
    def server_identity(self) -> tuple[Any, ...]:
        """What tells this database from another: address, number, key prefix."""
        kwargs = self._pool.connection_kwargs
        place = addresses.place_of(self._pool) or id(self)
        return place, kwargs.get("port"), kwargs.get("db") or 0, self.prefix

    def join(self, feed: str) -> heart.Heart:
        """The heart of this process at this database, before it claims jobs of `feed`.

        Others give back what we hold if we die.

        Raises :exc:`~phonon_kombu.errors.ConfigurationError` for a session whose connections only
        redis.asyncio can make.
        """
        beating = hearts.join(self.server_identity, self._make_heart)
        link = self._blocking_link()
        try:
            beating.hold(wire_name(feed, self.hash_tags), link)
        finally:
            link.close()
        return beating

    def leave(self, beating: heart.Heart) -> None:
        """The counterpart of :meth:`join`, for those who hold nothing any more."""
        hearts.leave(self.server_identity, beating, goodbye=True)

    def _blocking_link(self) -> Link:
        pool = addresses.blocking_copy(self._pool)  # a heart outlives its session
        return Link(partial(addresses.connection_of, pool), pool.release)

    def _make_heart(self) -> heart.Heart:
        return heart.Heart(
            node_id(self.server_identity),
            self._blocking_link(),
            self.prefix,
            heart.Settings(),
        )

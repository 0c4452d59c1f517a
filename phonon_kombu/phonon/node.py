"""The identity of this process among all that share a Redis."""

from __future__ import annotations

import itertools
import os
import secrets
from collections import defaultdict
from collections.abc import Hashable

_nodes: defaultdict[Hashable, str]
_owners = itertools.count(1)


def _renew() -> None:
    global _nodes, _owners
    _nodes = defaultdict(lambda: secrets.token_hex(8))
    _owners = itertools.count(1)


_renew()
# A forked child is another node: what it claims must not look like its parent's.
os.register_at_fork(after_in_child=_renew)


def node_id(server: Hashable) -> str:
    """Random name of this process at one database, 16 hex digits; another one after a fork.

    `server` tells databases apart. One database may go by two addresses: the process is two
    nodes there, each with a heart of its own, and neither speaks for the other.
    """
    return _nodes[server]


def new_owner(server: Hashable) -> bytes:
    """A name for one holder of claims in this process: ``<node id>.<number>``."""
    return f"{node_id(server)}.{next(_owners)}".encode()

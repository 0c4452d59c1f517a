"""The identity of this process among all that share a Redis."""

from __future__ import annotations

import itertools
import os
import secrets

_node_id = secrets.token_hex(8)
_owners = itertools.count(1)


def _renew() -> None:
    global _node_id, _owners
    _node_id = secrets.token_hex(8)
    _owners = itertools.count(1)


# A forked child is another node: what it claims must not look like its parent's.
os.register_at_fork(after_in_child=_renew)


def node_id() -> str:
    """Random name of this process, 16 hex digits; another one after a fork."""
    return _node_id


def new_owner() -> bytes:
    """A name for one holder of claims in this process: ``<node id>.<number>``."""
    return f"{_node_id}.{next(_owners)}".encode()

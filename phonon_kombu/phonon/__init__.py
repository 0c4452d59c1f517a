"""phonon: who is alive, what they hold, and records that many processes fill together.

::

    from phonon_kombu import phonon

    phonon.connections.connect(hosts=["redis01.example.com", "redis02.example.com"])
    phonon.registry.register(...)

The modules `connections`, `registry`, `model`, `field`, `fields`, `reference` and `lock` are
imported when they are first named.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import connections, field, fields, lock, model, reference, registry

__all__ = ["connections", "field", "fields", "lock", "model", "reference", "registry"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""A Kombu transport for Redis that people can trust with their tasks.

Importing this package makes ``phonon://`` known to kombu. Celery does that by itself (see
:mod:`phonon_kombu.registration`); a program that only uses ``kombu.Connection`` imports it once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .registration import register

if TYPE_CHECKING:
    from .backend.aggregate import aggregate
    from .backend.progress import chord_progress
    from .stalling import Stall

__version__ = "0.1.0"

__all__ = ["Stall", "__version__", "aggregate", "chord_progress"]

register()


def __getattr__(name: str) -> Any:
    # It needs celery, which a program that only connects need not load.
    if name == "Stall":
        from .stalling import Stall

        return Stall
    if name == "aggregate":
        from .backend.aggregate import aggregate

        return aggregate
    if name == "chord_progress":
        from .backend.progress import chord_progress

        return chord_progress
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

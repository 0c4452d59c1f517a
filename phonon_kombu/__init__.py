"""A Kombu transport for Redis that people can trust with their tasks.

Importing this package makes ``phonon://`` known to kombu. Celery does that by itself (see
:mod:`phonon_kombu.registration`); a program that only uses ``kombu.Connection`` imports it once.
"""

from __future__ import annotations

from typing import Any

from .registration import register

__version__ = "0.1.0"

__all__ = ["__version__", "aggregate", "chord_progress"]

register()


def __getattr__(name: str) -> Any:
    # Celery and redis are imported when these are asked for, not with the package.
    if name == "aggregate":
        from .backend.aggregate import aggregate

        return aggregate
    if name == "chord_progress":
        from .backend.progress import chord_progress

        return chord_progress
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

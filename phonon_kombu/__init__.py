"""A Kombu transport for Redis that people can trust with their tasks.

Importing this package makes ``phonon://`` known to kombu. Celery does that by itself (see
:mod:`phonon_kombu.registration`); a program that only uses ``kombu.Connection`` imports it once.
"""

from __future__ import annotations

from .registration import register

__version__ = "0.1.0"

__all__ = ["__version__"]

register()

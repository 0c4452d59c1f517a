"""Celery's result backend on phonon: ``result_backend = "phonon://localhost:6379/0"``."""

from __future__ import annotations

from . import takeover
from .backend import PhononBackend, PhononSentinelBackend

__all__ = ["PhononBackend", "PhononSentinelBackend"]

takeover.install()

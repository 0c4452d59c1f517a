"""The Celery exam's fixtures, for workers that are killed, frozen and cut off."""

from tests.celery.conftest import exam, scheme

__all__ = ["exam", "scheme"]

"""The classes that Celery makes of a ``phonon://`` result backend URL."""

from __future__ import annotations

from typing import Any

from celery.backends.redis import SentinelBackend

from ..store.urls import check_backend
from . import urls
from .chords import Chords


class PhononBackend(Chords):
    """Celery's Redis result backend, with atomic results and chords that survive a crash.

    All settings of ``celery.backends.redis`` hold. URLs: ``phonon://``, ``phonons://`` (TLS, the
    certificate is verified by default), ``phonon+socket://``, ``phonon+sentinel://`` and
    ``phonon+embedded://``.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        # Celery looks up one name for all that begins with `phonon+`.
        if cls is PhononBackend and urls.is_sentinel(kwargs.get("url")):
            return super().__new__(PhononSentinelBackend)
        return super().__new__(cls)


class PhononSentinelBackend(PhononBackend, SentinelBackend):
    """The same through Redis Sentinel: the URL names the sentinels."""

    def _params_from_url(self, url: str, defaults: dict[str, Any]) -> dict[str, Any]:
        chunks = url.split(self._SERVER_URI_SEPARATOR)
        for chunk in chunks:
            check_backend(chunk)
        translated = self._SERVER_URI_SEPARATOR.join(map(urls.translate, chunks))
        with urls.blamed():
            return dict(SentinelBackend._params_from_url(self, translated, defaults))

"""Makes the ``phonon`` URL schemes known to kombu, without importing redis or celery.

kombu keeps its transports in a table, :data:`kombu.transport.TRANSPORT_ALIASES`, and offers no
entry point to add to it. It does load the entry points of the group ``kombu.serializers`` when
:mod:`kombu.serialization` is imported, which happens before any connection can carry a message.
Ours, :data:`SERIALIZER`, brings in this module and thereby the aliases, so that
``Celery(broker="phonon://...")`` works in a process that imports nothing of ours by hand.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

TRANSPORT = "phonon_kombu.transport:Transport"
SENTINEL_TRANSPORT = "phonon_kombu.transport:SentinelTransport"

#: URL scheme -> dotted name of the transport class. The forms with a ``+`` are what kombu looks
#: up when it fails over to the next URL of a list; in the first URL it splits them at the ``+``.
ALIASES: dict[str, str] = {
    "phonon": TRANSPORT,
    "phonons": "phonon_kombu.transport:TLSTransport",
    "phonon+socket": TRANSPORT,
    "phonon+embedded": TRANSPORT,
    "phonon+sentinel": SENTINEL_TRANSPORT,
}


def register() -> None:
    """Add :data:`ALIASES` to kombu's table of transports. Doing it again changes nothing."""
    from kombu.transport import TRANSPORT_ALIASES

    TRANSPORT_ALIASES.update(ALIASES)
    # kombu takes a URL apart before the transport sees it, and what it stumbles over is an error
    # of any kind; of a socket's URL it loses the path. It offers no other way to be heard first.
    from kombu.utils import url

    for module in (url, sys.modules.get("kombu.connection")):
        parse = getattr(module, "parse_url", None)
        if parse is not None and not hasattr(parse, "of_phonon"):
            setattr(module, "parse_url", _reads_our_urls(parse))  # noqa: B010


def _reads_our_urls(parse: Callable[[str], dict[str, Any]]) -> Callable[[str], dict[str, Any]]:
    """kombu's `parse_url`, but for our own URLs."""

    @wraps(parse)
    def parse_url(url: str) -> dict[str, Any]:
        if not url.startswith("phonon"):
            return parse(url)
        from .store.urls import FORMS
        from .transport.options import check_url

        check_url(url)
        scheme, plus, rest = url.partition("+")
        if plus and url.partition("://")[0] in FORMS:
            # As kombu's Connection does it with the first URL of a list.
            return {"transport": scheme, "hostname": rest}
        return parse(url)

    parse_url.of_phonon = True  # type: ignore[attr-defined]
    return parse_url


def prepare_workers() -> None:
    """Have a worker of this process make its result backend before its pool, if that is ours.

    Celery makes it when it is first used, in prefork that is in the children; but the main process
    has to look after chords that a killed child leaves. Called by the ``celery`` command only.
    """
    from celery import signals

    signals.worker_init.connect(_make_backend, dispatch_uid="phonon_kombu.registration")


def _make_backend(sender: Any = None, **_: Any) -> None:
    app = getattr(sender, "app", None)
    if app is not None and str(app.conf.result_backend or "").startswith("phonon"):
        _ = app.backend


def _dumps(obj: Any) -> str:
    return json.dumps(obj, separators=(",", ":"))


#: What kombu registers as the serializer ``phonon``: plain JSON without spaces, safe to accept.
SERIALIZER = (_dumps, json.loads, "application/x-phonon-json", "utf-8")

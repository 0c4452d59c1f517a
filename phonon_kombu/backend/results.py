"""Group results that look at all their members in a few trips."""

from __future__ import annotations

from typing import Any

from celery import states
from celery.result import GroupResult as StockGroupResult


class GroupResult(StockGroupResult):
    """Celery's, for an application whose results are kept by ours.

    A client that waits for the result of a chord asks again and again whether a header task has
    failed. Celery asks for each of them in turn; this asks for two hundred at once, and never
    again for those that have succeeded.
    """

    #: Ids of members that are known to have succeeded.
    _succeeded: set[str] | None = None

    def maybe_throw(self, callback: Any = None, propagate: bool = True) -> None:
        """Raise what the first failed member has failed with, if one has."""
        backend = getattr(self, "backend", None)
        survey = getattr(backend, "survey", None)
        if callback is not None or survey is None or self._nested():
            super().maybe_throw(callback=callback, propagate=propagate)
            return
        known = self._succeeded
        if known is None:
            known = self._succeeded = set()
        asked = []
        for result in self.results:
            cache = result._cache
            if cache is None:
                if result.id not in known:
                    asked.append(result)
            elif cache["status"] in states.PROPAGATE_STATES:
                result.maybe_throw(propagate=propagate)
        for result, meta in zip(asked, survey([one.id for one in asked]), strict=True):
            if meta is True:
                known.add(result.id)
            elif meta is not None and meta["status"] in states.READY_STATES:
                result._maybe_set_cache(meta)
                result.maybe_throw(propagate=propagate)

    maybe_reraise = maybe_throw

    def then(self, callback: Any, on_error: Any = None, weak: bool = False) -> Any:
        """Have `callback` called when all members are ready."""
        consumer = getattr(getattr(self, "backend", None), "result_consumer", None)
        if consumer is not None and hasattr(consumer, "want"):
            consumer.want(self)
        return super().then(callback, on_error, weak)

    def _nested(self) -> bool:
        return any(not hasattr(result, "_cache") for result in self.results)


def adopt(app: Any) -> None:
    """Let `app` make group results of this class, unless it has a class of its own."""
    current = app.GroupResult
    if not issubclass(current, GroupResult) and current.maybe_throw is StockGroupResult.maybe_throw:
        app.GroupResult = app.subclass_with_self(GroupResult)

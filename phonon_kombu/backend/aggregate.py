"""Aggregating chords: what the parts return is folded in Redis, and the body gets one aggregate.

::

    from phonon_kombu import aggregate
    from phonon_kombu.phonon.fields import SetAppend, Sum, TopN

    fields = {"lines": Sum(), "authors": SetAppend(), "slowest": TopN(10)}
    result = aggregate((count.s(path) for path in paths), fields)(report.s())

The layout of the fields travels in the headers of the body, which every header task carries along.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from celery.canvas import Signature, _chain, chord, group, maybe_signature

from ..errors import ConfigurationError, FieldError
from ..phonon.fields import Fields, Layout
from ..phonon.model import Model, partials_of

#: Header of a body's message that says how the parts of its chord are folded.
HEADER = "phonon_fields"


class Aggregation:
    """The header of an aggregating chord, waiting for its body: see :func:`aggregate`."""

    def __init__(self, header: Any, fields: Any, keep_results: bool = False) -> None:
        self.layout = layout_of(fields)
        self._keep = keep_results
        if isinstance(header, group):
            header = header.tasks
        self._header = header

    def __call__(self, body: Any, **options: Any) -> Any:
        """Apply the chord; returns the result of the body.

        `options` are those of ``chord.apply_async``. Raises
        :exc:`~phonon_kombu.errors.ConfigurationError` for a header or body that cannot be.
        """
        parts = self._parts()
        first = next(parts, None)
        if first is None:
            nothing = {name: field.default_value for name, field in self.layout.aggregated.items()}
            return body.clone().apply_async((plain(nothing),), **chosen(options))
        whole = chord(itertools.chain([first], parts), self._body(body, options))
        return whole.apply_async(**options)

    def signature(self, body: Any) -> Any:
        """The chord as a signature, to be part of a canvas. A generator is used up by it."""
        return chord(list(self._parts()), self._body(body, {}))

    def _body(self, body: Any, options: dict[str, Any]) -> Any:
        body = body.clone()
        headers = {**(body.options.get("headers") or {}), **(options.pop("headers", None) or {})}
        body.options["headers"] = {**headers, HEADER: json.dumps(self.layout.spec())}
        return body

    def _parts(self) -> Iterator[Any]:
        for part in self._header:
            yield self._part(maybe_signature(part).clone())

    def _part(self, part: Any) -> Any:
        """A part, told whether its result is kept beside the aggregate."""
        last: Any = part
        while isinstance(last, _chain | chord):
            last = last.tasks[-1] if isinstance(last, _chain) else last.body
        if isinstance(last, group) or not isinstance(last, Signature):
            raise ConfigurationError(
                "the header of an aggregating chord holds tasks, and chains and chords that end "
                f"in a task: {last!r} is none"
            )
        if not self._keep:
            last.options["ignore_result"] = True
        return part


def aggregate(header: Iterable[Any], fields: Any, *, keep_results: bool = False) -> Aggregation:
    """A chord whose parts are folded into one aggregate, whatever their number.

    Call what is returned with the body. A part returns a mapping by field, or with one field its
    value; None is nothing. The body's first argument is the aggregate, a mapping by field: sets
    come as sorted lists, tuples as lists. A value that its field refuses fails its part with a
    :exc:`~phonon_kombu.errors.FieldError`.

    Of a model a part may return a record, too. Its id names it and is not aggregated: a part gives
    any id or none, and the aggregate has none. What the model does for itself, such as
    ``on_complete``, is not called.

    Arguments:
        header: signatures, also from a generator: tasks, and chains and chords that end in one.
        fields: name -> field (:mod:`phonon_kombu.phonon.fields`), a ``Layout``, or a model class.
        keep_results: keep the result of each part, too, as other tasks' results are kept.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
    """
    return Aggregation(header, fields, keep_results)


def layout_of(fields: Any) -> Layout:
    """The layout that a user means. Raises :exc:`~phonon_kombu.errors.ConfigurationError`."""
    if isinstance(fields, type) and issubclass(fields, Model):
        layout = fields.layout
    elif isinstance(fields, Layout):
        layout = fields
    elif isinstance(fields, Mapping):
        layout = Layout(fields)
    else:
        raise ConfigurationError(f"{fields!r}: give fields by name, a Layout or a model class")
    if not layout.aggregated:
        raise ConfigurationError("an aggregate needs a field")
    for name, field in layout.fields.items():
        if type(field) is not Fields.get(type(field).__name__):
            raise ConfigurationError(
                f"the field {name!r} is a {type(field).__name__}, which workers cannot make of a "
                "message: use the fields of phonon_kombu.phonon.fields"
            )
    return layout


def delta_of(layout: Layout, result: Any) -> list[bytes]:
    """What folds a part's result: a mapping by field, the one field's value, or a record.

    Raises :exc:`~phonon_kombu.errors.FieldError`.
    """
    if not isinstance(result, Model):
        return layout.encode(layout.lift_result(result))
    if result.layout.spec() != layout.spec():
        raise FieldError(
            f"the part returned a record of {type(result).__name__}, whose fields are not those "
            "of the aggregate"
        )
    return layout.encode(partials_of(result))


def layout_in(body: Any) -> Layout | None:
    """The layout that a body carries; None for the body of another chord.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError` for one that cannot be read.
    """
    headers = ((body or {}).get("options") or {}).get("headers") or {}
    spec = headers.get(HEADER)
    return None if spec is None else _layout(spec)


@lru_cache(maxsize=128)
def _layout(spec: str) -> Layout:
    try:
        return Layout.of_spec(json.loads(spec))
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"no description of fields: {error}") from None


def chosen(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a chord that mean the same for a single task."""
    return {name: value for name, value in options.items() if name not in ("interval",)}


def plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """An aggregate as it can be sent in a message."""
    return {
        name: sorted(value, key=lambda one: (isinstance(one, str), one))
        if isinstance(value, set | frozenset)
        else value
        for name, value in values.items()
    }

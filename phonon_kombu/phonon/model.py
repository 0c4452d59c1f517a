"""Models: records that many processes fill at once, and the last one completes.

::

    class Session(Model):
        id = ID()
        impressions = SumField()
        clicks = SumField()

        def on_complete(self, msg):
            print(self.id, self.impressions, self.clicks)   # of all processes together
            msg.finish()

    registry.register(Session(id=42, clicks=1), msg)
"""

from __future__ import annotations

import inspect
import json
import logging
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

from ..errors import ConfigurationError, FieldError
from .connections import Connections, current
from .fields import ID, Field, Layout

logger = logging.getLogger("phonon_kombu.phonon")

M = TypeVar("M", bound="Model")

#: The models of this process by name.
MODELS: dict[str, type[Model]] = {}


class Model:
    """A record with an id and fields. Subclasses declare the fields as attributes.

    A value that is not given is the partial of nothing: 0 for a sum, an empty list, None for an
    extreme. What a field reads is what it amounts to: of the values given to this object, and in
    :meth:`on_complete` of those of all processes.

    Every model has a field ``id``: text or a whole number, which names the record.

    Attributes of the class, which a subclass may set:
        NAME: the model's name in Redis (default: the class's). All processes must have the same
            fields under it.
        TTL: seconds without a registration after which a process lets go of a record; 30.
        FLUSH_SECONDS: how long values may stay in this process's memory only; 0.2.

    Redis keys:
        <prefix>model.row:{<record>}: HASH, the numbers of the aggregate; ``~id`` the id,
            ``~closer`` who completes it. Lists, sets, windows, rankings and distinct counts have
            a key each beside it.
        <prefix>model.holders:{<record>}: SET, who holds it.
        <prefix>model.senders:{<record>}: HASH, number of each holder's last fold; ends by itself
            after a day, ten minutes after the record was completed.
        <prefix>model.seen:{<record>}: SET, messages that were folded and are not known to be
            acknowledged; ends by itself after ten minutes.

    Raises :exc:`~phonon_kombu.errors.FieldError` for a value that a field refuses, for a name
    that is no field, and where the id is missing.
    """

    NAME: ClassVar[str] = ""
    TTL: ClassVar[float] = 30.0
    FLUSH_SECONDS: ClassVar[float] = 0.2
    layout: ClassVar[Layout] = Layout({"id": ID()})

    id = ID()

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        fields: dict[str, Field[Any]] = {}
        for parent in reversed(cls.__mro__):
            fields |= {n: f for n, f in vars(parent).items() if isinstance(f, Field)}
        check_attributes(cls, vars(cls))
        if not isinstance(fields.get("id"), ID):
            raise ConfigurationError(f"{cls.__name__}.id must be an ID()")
        cls.layout = Layout(fields)
        if "NAME" not in vars(cls):
            cls.NAME = cls.__name__
        if not cls.NAME.isidentifier():
            raise ConfigurationError(f"NAME={cls.NAME!r}: it must be an identifier")
        MODELS[cls.NAME] = cls

    def __init__(self, **values: Any) -> None:
        if "id" not in values:
            raise FieldError(f"{type(self).__name__}: id is a required field")
        self._partials = self.layout.lift(values)
        self._results: dict[str, Any] = {}

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self.as_dict().items())
        return f"{type(self).__name__}({shown})"

    def _value(self, field: Field[Any]) -> Any:
        if field.name in self._results:
            return self._results[field.name]
        return field.result(self._partials[field.name])

    def _set(self, field: Field[Any], value: Any) -> None:
        self._partials[field.name] = field.lift(value)
        self._results.pop(field.name, None)

    def as_dict(self) -> dict[str, Any]:
        """What the fields read, by name."""
        return {name: self._value(field) for name, field in self.layout.fields.items()}

    def merge(self, other: Model) -> None:
        """Take in the values of `other`, which has the same id.

        Raises :exc:`~phonon_kombu.errors.FieldError` if the values together are refused.
        """
        self._partials = self.layout.merge(self._partials, other._partials)
        self._results = {}

    def registry_key(self) -> str:
        """The record's name, in the registry and in Redis: ``Session.42``."""
        return f"{self.NAME}.{self.id}"

    @classmethod
    def read(cls: type[M], id: Any, connections: Connections | None = None) -> M:
        """The aggregate so far of what all processes have folded into the record.

        Raises redis-py's connection errors.
        """
        record = cls(id=id)
        made = current() if connections is None else connections
        name = record.registry_key()
        keys = cls.layout.keys(name, made.prefix)
        return cls.of_aggregate(id, cls.layout.read(made.host_of(name).link, keys))

    @classmethod
    def of_aggregate(cls: type[M], id: Any, results: dict[str, Any]) -> M:
        """A record whose fields read `results`."""
        record = cls.__new__(cls)
        record._partials = cls.layout.lift({"id": id})
        record._results = results
        return record

    # What a subclass may define ------------------------------------------------------------

    def on_complete(self, *args: Any, **kwargs: Any) -> Any:
        """The last process has let go: the fields read the aggregate of all processes.

        It gets the arguments of the last registration in the process that completes the record.
        Where a process completes it for others that died, there are none: each argument that it
        must be given is then :data:`NOTHING`. May be a coroutine function where records are
        registered in an event loop. If it raises, it is called again later; what is in Redis is
        deleted when it returns.
        """

    def on_flush(self, *args: Any, **kwargs: Any) -> Any:
        """Values that were registered with these arguments are in Redis now.

        It is called for each registration with arguments whose arguments :meth:`on_complete` does
        not get: time to acknowledge the message that brought the values. By default that is
        done for every argument with a method ``finish`` (NSQ) or ``ack`` (kombu).
        """
        for arg in (*args, *kwargs.values()):
            acknowledge = getattr(arg, "finish", None) or getattr(arg, "ack", None)
            if callable(acknowledge):
                acknowledge()

    def message_id(self, *args: Any, **kwargs: Any) -> str | bytes | None:
        """Which message these arguments are: the same when the bus delivers it again.

        A message that has one counts once, also if its process died between folding its values
        and acknowledging it. By default it is the attribute ``id`` of an argument that
        :meth:`on_flush` would acknowledge, if that is text or bytes (NSQ); None is none.
        """
        for arg in (*args, *kwargs.values()):
            if callable(getattr(arg, "finish", None) or getattr(arg, "ack", None)):
                found = getattr(arg, "id", None)
                return found if isinstance(found, str | bytes) else None
        return None

    def on_error(self, error: Exception, *args: Any, **kwargs: Any) -> Any:
        """Values registered with these arguments were refused and are not in Redis; by default
        that is logged, and the message not acknowledged."""
        logger.error("%s was not folded: %s", self.registry_key(), error)


def check_attributes(cls: type[Model], attributes: Mapping[str, Any]) -> None:
    """See what a new model declares that cannot be meant.

    Raises :exc:`~phonon_kombu.errors.ConfigurationError`.
    """
    for name, value in attributes.items():
        if isinstance(value, type) and issubclass(value, Field):
            raise ConfigurationError(
                f"{cls.__name__}.{name} = {value.__name__}: a field is made by calling it, "
                f"{value.__name__}()"
            )
        if isinstance(value, Field) and name != "id" and hasattr(Model, name):
            raise ConfigurationError(f"{cls.__name__}.{name}: a model has something of this name")
        if name in ("TTL", "FLUSH_SECONDS") and not (
            isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
        ):
            raise ConfigurationError(
                f"{cls.__name__}.{name} = {value!r}: it must be a number of seconds"
            )


class _Nothing:
    """Stands for an argument that died with its process: false, and all its methods do nothing."""

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "NOTHING"

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        return None

    def __getattr__(self, name: str) -> _Nothing:
        if name.startswith("__"):
            raise AttributeError(name)
        return self


NOTHING = _Nothing()


def nothings(record: Model) -> tuple[Any, ...]:
    """An argument for each one that the record's on_complete must be given."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(record.on_complete).parameters.values()
    return tuple(NOTHING for p in parameters if p.kind in kinds and p.default is p.empty)


def partials_of(record: Model) -> dict[str, Any]:
    """What was given to the record and is to be folded, by field. (A method's name would be lost
    to the names of fields.)"""
    return record._partials


def written_id(record: Model) -> bytes:
    """The record's id as it is kept with the aggregate."""
    return json.dumps(record.id).encode()

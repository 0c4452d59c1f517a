"""What piles up of a record while the server is silent is folded in parts, all of it and once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from phonon_kombu.errors import FieldError
from phonon_kombu.phonon import field
from phonon_kombu.phonon.connections import Connections
from phonon_kombu.phonon.model import Model
from phonon_kombu.phonon.registry import Registry
from phonon_kombu.store.scripts import load
from tests.models.messages import Message
from tests.servers import RedisServer
from tests.thoonk.lossy import LossyLine

ids = itertools.count()


class Piling(Model):
    """Keeps all that comes; what was refused and completed stands beside it."""

    TTL = 3600.0
    FLUSH_SECONDS = 3600.0
    l = field.ListAppendField(None)  # noqa: E741
    n = field.SumField()
    w = field.WindowedListField(10_000)
    refused: list[Any] = []
    completed: list[Model] = []

    def on_complete(self, *messages: Message) -> None:
        self.completed.append(self)
        for message in messages:
            message.finish()

    def on_error(self, error: Exception, *messages: Message) -> None:
        self.refused.append((type(error), messages))


@pytest.fixture
def line(redis_server: RedisServer) -> Iterator[LossyLine]:
    lossy = LossyLine(redis_server.port)
    yield lossy
    lossy.close()
    Piling.refused.clear()
    Piling.completed.clear()


@pytest.mark.parametrize("bus", ["none", "without names", "with names"])
def test_more_than_one_fold_takes(redis_client: redis.Redis, line: LossyLine, bus: str) -> None:
    """Also where replies are lost, and where a message comes twice and is late the second time."""
    id = next(ids)
    with Connections(f"127.0.0.1:{line.port}") as made:
        one = Registry(connections=made)
        messages = [Message(f"{id}.{n}" if bus == "with names" else None) for n in range(60)]
        numbers = iter(range(30_000))
        one.register(Piling(id=id))
        with made.hosts[0]._link.lock:  # as if the server were silent
            for message in messages:
                values = list(itertools.islice(numbers, 500))
                record = Piling(id=id, l=values, n=1, w=[(v, v) for v in values])
                one.register(record, *([] if bus == "none" else [message]))
            if bus == "with names":
                messages.append(Message(messages[0].id))
                one.register(Piling(id=id, l=list(range(500)), n=1), messages[-1])
                messages.append(Message(f"{id}.last"))
                one.register(Piling(id=id), messages[-1])
            line.lose(load("model/flush").sha.encode(), 3)
        one.close()
    assert line.lost == 3
    assert Piling.refused == []
    found: Any = Piling.completed.pop()
    assert not Piling.completed
    assert found.l == list(range(30_000)) and found.n == 60
    assert found.w == [(v, v) for v in range(20_000, 30_000)]
    assert {message.finished for message in messages} == ({0} if bus == "none" else {1})


def test_only_what_is_too_much_by_itself_is_refused(made: Connections) -> None:
    one, id = Registry(connections=made), next(ids)
    messages = [Message() for _ in range(3)]
    one.register(Piling(id=id, n=1), messages[0])
    one.register(Piling(id=id, n=10, l=list(range(30_000))), messages[1])
    one.register(Piling(id=id, n=100), messages[2])
    one.close()
    assert Piling.refused == [(FieldError, (messages[1],))]
    assert Piling.completed.pop().n == 101  # type: ignore[attr-defined]
    assert [message.finished for message in messages] == [1, 0, 1]


def test_named_messages_are_not_folded_one_by_one(made: Connections) -> None:
    """After the first part, too, many go into one."""
    one, id = Registry(connections=made), next(ids)
    one.register(Piling(id=id))
    with made.hosts[0]._link.lock:  # as if the server were silent
        for n in range(6000):
            one.register(Piling(id=id, n=1), Message(f"{id}.{n}"))
        (entry,) = one._entries.values()
        assert 1 <= len(entry.parts) <= 20
    one.close()
    assert Piling.completed.pop().n == 6000  # type: ignore[attr-defined]


class Acknowledging(Piling):
    """Acknowledges its messages once they are folded, if the bus is there."""

    away = False

    def on_flush(self, *messages: Message) -> None:
        if self.away:
            raise ConnectionError("the bus is away")


@pytest.mark.parametrize("away", [True, False], ids=["on_flush raises", "not acknowledged"])
def test_a_message_that_comes_again_counts_once(
    made: Connections, away: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Acknowledging, "away", away)
    one, id = Registry(connections=made), next(ids)
    names = iter("abc")

    def flush() -> None:
        one.register(Acknowledging(id=id), Message(f"{id}.{next(names)}"))
        one.flush()
        assert one._callbacks.wait_idle(5)

    again = f"{id}.again"
    one.register(Acknowledging(id=id, n=1), Message(again))
    flush()
    if away:
        flush()
    one.register(Acknowledging(id=id, n=1), Message(again))
    if away:
        flush()
    else:
        one.flush()
    one.close()
    assert Acknowledging.completed.pop().n == 1  # type: ignore[attr-defined]


@pytest.fixture
def made(url: str, line: LossyLine) -> Iterator[Connections]:
    with Connections(url) as found:
        yield found

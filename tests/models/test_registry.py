"""The registry: merging in memory, folding, letting go, completing, and what goes wrong."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import redis

from phonon_kombu.errors import ConfigurationError, FieldError, RegistryFull
from phonon_kombu.phonon import connections, field, registry
from phonon_kombu.phonon.connections import Connections
from phonon_kombu.phonon.model import Model
from phonon_kombu.phonon.registry import Registry
from phonon_kombu.store.scripts import load
from tests.models.messages import Message
from tests.servers import RedisServer
from tests.servers import wait_for as wait_for_seconds
from tests.thoonk.lossy import LossyLine

#: A condition that comes true, also on a busy machine.
wait_for = partial(wait_for_seconds, timeout_seconds=60)

#: What callbacks were called: name of the model -> (what, values, arguments).
calls: dict[str, list[tuple[str, dict[str, Any], tuple[Any, ...]]]] = defaultdict(list)


class Noting(Model):
    """Notes its callbacks."""

    TTL = 3600.0
    FLUSH_SECONDS = 3600.0
    n = field.SumField()
    l = field.ListAppendField(5)  # noqa: E741
    s = field.SetAppendField()
    u = field.CountDistinctField()
    m = field.MeanField()

    def on_complete(self, *args: Any, **kwargs: Any) -> Any:
        calls[self.NAME].append(("complete", self.as_dict(), args))

    def on_flush(self, *args: Any, **kwargs: Any) -> Any:
        calls[self.NAME].append(("flush", self.as_dict(), args))

    def on_error(self, error: Exception, *args: Any, **kwargs: Any) -> Any:
        calls[self.NAME].append((type(error).__name__, self.as_dict(), args))


def noted(what: str, model: type[Model] = Noting) -> list[tuple[Any, ...]]:
    """The arguments of the calls of this kind so far."""
    return [args for kind, _, args in list(calls[model.NAME]) if kind == what]


def completed(model: type[Model] = Noting) -> list[dict[str, Any]]:
    """The records that on_complete has seen."""
    return [values for kind, values, _ in list(calls[model.NAME]) if kind == "complete"]


@pytest.fixture(autouse=True)
def nothing_noted() -> Iterator[None]:
    """Each test begins with no calls."""
    calls.clear()
    yield
    calls.clear()


@pytest.fixture
def made(url: str) -> Iterator[Connections]:
    """Connections to an empty database."""
    with Connections(url) as found:
        yield found


@pytest.fixture
def make(made: Connections) -> Iterator[Callable[..., Registry]]:
    """Makes registries; each is an owner of its own, as one in another process is."""
    all_made: list[Registry] = []

    def make_one(**options: Any) -> Registry:
        all_made.append(Registry(connections=made, **options))
        return all_made[-1]

    yield make_one
    for one in all_made:
        one.close()


def keys_left(client: redis.Redis) -> set[bytes]:
    """Keys of records, but for the numbers of senders, which end by themselves."""
    return {k for k in client.scan_iter("model.*") if not k.startswith(b"model.senders")}


def test_merged_in_memory_and_folded_at_once(
    make: Any, made: Connections, redis_client: redis.Redis
) -> None:
    one = make()
    for n in range(10):
        one.register(Noting(id=1, n=n, s=n % 3))
    assert Noting.read(1, made).n == 0
    assert one.models["Noting.1"].n == 45  # type: ignore[attr-defined]
    one.flush()
    assert Noting.read(1, made).as_dict() == {
        "id": 1, "n": 45, "l": [], "s": {0, 1, 2}, "u": 0, "m": None
    }  # fmt: skip
    assert one.models == {}
    one.flush()
    assert Noting.read(1, made).n == 45
    one.close()
    assert completed()[0]["n"] == 45
    assert keys_left(redis_client) == set()


def test_the_last_one_sees_what_all_have_given(make: Any, redis_client: redis.Redis) -> None:
    """Not what it had itself, and what was cached of the others' not: phonon 3.1 did that."""
    registries = [make() for _ in range(4)]
    for number, one in enumerate(registries):
        for n in range(3):
            one.register(
                Noting(id="x", n=n, s=number, u=f"{number}.{n}", m=n, l=number if not n else None),
                f"message {number}.{n}",
            )
    for one in registries[:-1]:
        one.close()
        assert completed() == []
    registries[-1].close()
    assert len(completed()) == 1
    found = completed()[0]
    assert found.pop("u") == pytest.approx(12, abs=1)
    assert sorted(found.pop("l")) == [0, 1, 2, 3]
    assert found == {"id": "x", "n": 12, "s": {0, 1, 2, 3}, "m": 1.0}
    # Every message is heard of once: the last one's last by on_complete.
    assert noted("complete") == [("message 3.2",)]
    assert sorted(noted("flush")) == [
        (f"message {number}.{n}",) for number in range(4) for n in range(3) if (number, n) != (3, 2)
    ]
    assert keys_left(redis_client) == set()


def test_what_is_not_acknowledged_is_not_in_redis(make: Any, made: Connections) -> None:
    """The last message of a record waits for its completion: its values stay in memory."""
    one = make()
    for n in (1, 10, 100):
        one.register(Noting(id=1, n=n, l=n), n)
    one.flush()
    assert Noting.read(1, made).n == 11
    wait_for(lambda: noted("flush") == [(1,), (10,)])
    one.register(Noting(id=1, n=1000, l=1000), 1000)
    one.flush()
    assert Noting.read(1, made).n == 111
    one.close()
    assert completed()[0]["n"] == 1111 and completed()[0]["l"] == [1, 10, 100, 1000]
    assert noted("flush") == [(1,), (10,), (100,)] and noted("complete") == [(1000,)]


def test_times(make: Any, made: Connections) -> None:
    """Folded after FLUSH_SECONDS; left when nothing has come for the TTL; completed."""

    class Quick(Noting):
        TTL = 1.0
        FLUSH_SECONDS = 0.05

    one = make()
    began = time.monotonic()
    one.register(Quick(id=1, n=1))
    wait_for(lambda: Quick.read(1, made).n == 1)
    assert completed(Quick) == []
    one.register(Quick(id=1, n=1))
    wait_for(lambda: completed(Quick))
    assert time.monotonic() - began >= 1.0
    assert [found["n"] for found in completed(Quick)] == [2]
    # What comes later is another record of the same name.
    one.register(Quick(id=1, n=5))
    wait_for(lambda: len(completed(Quick)) == 2)
    assert completed(Quick)[1]["n"] == 5


def test_the_oldest_is_let_go_of(make: Any) -> None:
    one = make(max_entries=3)
    for n in (1, 2, 3, 1, 4):
        one.register(Noting(id=n, n=n))
    wait_for(completed)
    assert [found["id"] for found in completed()] == [2]
    assert set(one.models) == {"Noting.1", "Noting.3", "Noting.4"}


def test_too_many_records(make: Any, made: Connections, redis_server: RedisServer) -> None:
    """With Redis away they pile up, but not for ever."""
    one = make(max_entries=2)
    for n in range(2):
        one.register(Noting(id=n, n=1))
    with made.hosts[0]._link.lock:  # the thread cannot send
        entries = one._entries
        for n in range(2, 4):
            entries[f"Noting.{n}"] = entries["Noting.0"]
        with pytest.raises(RegistryFull, match="4 records wait"):
            one.register(Noting(id=4, n=1))
        for n in range(2, 4):
            del entries[f"Noting.{n}"]
    with pytest.raises(ConfigurationError):
        Registry(max_entries=0)


@pytest.mark.parametrize("given", ["record", Noting, None])
def test_what_is_no_record(given: Any) -> None:
    with pytest.raises(ConfigurationError, match="is no record"):
        Registry().register(given)


def test_many_values_are_folded_at_once(make: Any, made: Connections) -> None:
    class Heavy(Noting):
        l = field.ListAppendField()  # noqa: E741

    one = make()
    for n in range(1200):
        one.register(Heavy(id=1, l=n))
    wait_for(lambda: len(Heavy.read(1, made).l) > 900)


def test_a_refused_value_is_told(make: Any, made: Connections) -> None:
    """A list that is full in Redis: on_error, and the record goes on."""
    one, other = make(), make()
    one.register(Noting(id=1, n=1, l=[1, 2, 3]), "one")
    other.register(Noting(id=1, n=1, l=[4, 5, 6]), "two")
    other.register(Noting(id=1, n=1, l=[7, 8, 9]), "three")
    one.close()
    other.close()
    assert noted("FieldFull") == [("two",), ("three",)] and noted("flush") == [("one",)]
    assert [found["l"] for found in completed()] == [[1, 2, 3]]


def test_too_much_for_one_fold(make: Any) -> None:
    class Heavy(Noting):
        l = field.ListAppendField()  # noqa: E741

    one = make()
    one.register(Heavy(id=1, l=list(range(30_000))), "much")
    one.register(Heavy(id=1, n=1), "little")
    one.close()
    assert ("much",) in noted("FieldError", Heavy)
    assert len(completed(Heavy)) == 1


def test_a_failing_on_complete_is_called_again(
    make: Any, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("phonon_kombu.phonon.completion.RETRY_SECONDS", 0.1)

    class Failing(Noting):
        def on_complete(self, *args: Any, **kwargs: Any) -> None:
            super().on_complete(*args, **kwargs)
            if len(completed(Failing)) < 3:
                raise OSError("the database is away")

    one = make()
    one.register(Failing(id=1, n=1))
    one.register(Failing(id=1, n=1), "message")
    one.close(60)
    assert [found["n"] for found in completed(Failing)] == [2, 2, 2]
    assert noted("complete", Failing) == [("message",)] * 3
    assert keys_left(redis_client) == set()


def test_registered_again_while_it_is_completed(make: Any, made: Connections) -> None:
    """It waits in memory, and is a new record of its own."""
    inside, go_on = threading.Event(), threading.Event()

    class Slow(Noting):
        FLUSH_SECONDS = 0.01

        def on_complete(self, *args: Any, **kwargs: Any) -> None:
            inside.set()
            assert go_on.wait(60)
            super().on_complete(*args, **kwargs)

    one, other = make(), make()
    one.register(Slow(id=1, n=1))
    closing = threading.Thread(target=one.close)
    closing.start()
    assert inside.wait(60)
    one.register(Slow(id=1, n=10))
    other.register(Slow(id=1, n=100))
    with pytest.raises(TimeoutError):
        other.flush(0.3)
    assert Slow.read(1, made).n == 1
    go_on.set()
    other.flush()
    closing.join(60)
    one.close()
    other.close()
    assert [found["n"] for found in completed(Slow)] == [1, 110]


class Counting(Model):
    """Leaves the acknowledgement to the default."""

    TTL = 3600.0
    FLUSH_SECONDS = 3600.0
    n = field.SumField()
    l = field.ListAppendField()  # noqa: E741

    def on_complete(self, *messages: Any) -> None:
        calls[self.NAME].append(("complete", self.as_dict(), messages))
        for message in messages:
            message.finish()


def register_all(one: Registry, *names: str) -> list[Message]:
    """Register a message for each name; its values are powers of two."""
    messages = [Message(name) for name in names]
    for message in messages:
        one.register(Counting(id=1, n=2 ** int(message.id), l=message.id), message)
    return messages


def die(one: Registry, client: Any) -> None:
    """What the others see of a registry whose process has died and was recovered."""
    records = next(iter(one._records.values()))
    client.srem("model.holders:{Counting.1}", records.owner)
    client.srem(records._held, records.owner + b" Counting.1")
    one._entries.clear()


def test_a_message_that_comes_again_counts_once(
    make: Any, made: Connections, redis_client: Any
) -> None:
    """One process has folded it and died before it was acknowledged; another gets it again."""
    dead, one = make(), make()
    dead._callbacks.call = lambda loop, some: None  # dies before it can acknowledge
    register_all(dead, "0", "1", "2", "3")
    dead.flush()
    assert Counting.read(1, made).l == ["0", "1", "2"]
    die(dead, redis_client)

    # In the middle of others, alone, and as the last one.
    again = register_all(one, "4", "1", "5", "0", "3")
    one.flush()
    wait_for(lambda: [message.finished for message in again] == [1, 1, 1, 1, 0])
    again += register_all(one, "2")
    one.flush()
    one.close()
    assert [found["l"] for found in completed(Counting)] == [["0", "1", "2", "4", "5", "3"]]
    assert completed(Counting)[0]["n"] == 63
    assert [message.finished for message in again] == [1] * 6


def test_it_comes_again_after_the_record_was_completed(make: Any, redis_client: Any) -> None:
    """There is nothing to complete a second time."""
    dead, one, other = make(), make(), make()
    other.register(Counting(id=1, n=64, l="6"))
    dead._callbacks.call = lambda loop, some: None
    register_all(dead, "0", "1")
    dead.flush()
    die(dead, redis_client)
    other.close()
    again = register_all(one, "0")
    one.close()
    assert [found["n"] for found in completed(Counting)] == [65]
    assert again[0].finished == 1
    assert keys_left(redis_client) <= {b"model.seen:{Counting.1}"}
    register_all(one, "1")
    one.close()
    assert [found["n"] for found in completed(Counting)] == [65, 2]


def test_it_comes_again_to_the_same_process(make: Any, made: Connections) -> None:
    one = make()
    register_all(one, "0", "0", "1", "0", "1")
    one.flush()
    register_all(one, "0", "2", "2")
    one.close()
    assert [found["n"] for found in completed(Counting)] == [7]


def test_acknowledged_messages_are_forgotten(make: Any, redis_client: Any) -> None:
    """What Redis remembers does not grow with the number of messages."""
    one = make()
    for n in range(0, 40, 4):
        register_all(one, *(str(n + more) for more in range(4)))
        one.flush()
        assert one._callbacks.wait_idle(10)
    assert redis_client.scard("model.seen:{Counting.1}") <= 4
    one.close()
    assert completed(Counting)[0]["n"] == 2**40 - 1


def test_the_names_of_messages() -> None:
    record = Counting(id=1)
    assert record.message_id(5, Message("x")) == "x"
    assert record.message_id("no message") is None
    assert record.message_id(Message(7)) is None  # type: ignore[arg-type]


def test_threads_register_at_once(make: Any, made: Connections) -> None:
    one = make(max_entries=5)

    def work(me: int) -> None:
        for n in range(300):
            one.register(Noting(id=n % 7, n=1), (me, n))

    threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    one.close()
    assert sum(found["n"] for found in completed()) == 1200
    heard = [*noted("flush"), *noted("complete")]
    assert sorted(heard) == [((me, n),) for me in range(4) for n in range(300)]


def test_in_an_event_loop(make: Any) -> None:
    """Callbacks are called in the loop, and may be coroutines."""
    where: list[Any] = []

    class Async(Noting):
        async def on_complete(self, *args: Any, **kwargs: Any) -> None:
            await asyncio.sleep(0)
            where.append(asyncio.get_running_loop())
            super().on_complete(*args, **kwargs)

        def on_flush(self, *args: Any, **kwargs: Any) -> None:
            where.append(asyncio.get_running_loop())

    async def main() -> None:
        one = make()
        one.register(Async(id=1, n=1), "a")
        await asyncio.gather(*(one.register_async(Async(id=1, n=1), n) for n in range(3)))
        await one.close_async()
        assert where == [asyncio.get_running_loop()] * 4

    asyncio.run(asyncio.wait_for(main(), 60))
    assert [found["n"] for found in completed(Async)] == [4]


def test_an_event_loop_that_has_ended(make: Any) -> None:
    class Async(Noting):
        async def on_complete(self, *args: Any, **kwargs: Any) -> None:
            super().on_complete(*args, **kwargs)

    one = make()

    async def main() -> None:
        one.register(Async(id=1, n=1), "a")
        one.register(Async(id=1, n=1), "b")

    asyncio.run(main())
    one.close()
    assert completed(Async)[0]["n"] == 2 and noted("flush", Async) == [("a",)]


def test_taken_for_dead(make: Any, made: Connections, redis_client: redis.Redis) -> None:
    """A process that was frozen holds nothing when it wakes; what it has in memory is not lost."""
    one = make()
    one.register(Noting(id=1, n=1))
    one.flush()
    redis_client.delete("model.holders:{Noting.1}")
    one.register(Noting(id=1, n=10))
    one.flush()
    redis_client.delete("model.holders:{Noting.1}")
    one.register(Noting(id=1, n=100))
    one.close()
    assert [found["n"] for found in completed()] == [111]


def test_replies_that_are_lost(
    redis_server: RedisServer, redis_client: redis.Redis, line: LossyLine
) -> None:
    """A fold whose reply is lost is sent again, and counts once."""
    with Connections(f"127.0.0.1:{line.port}") as made:
        one = Registry(connections=made)
        one.register(Noting(id=1, n=1), "a")
        one.register(Noting(id=1, n=1), "b")
        for lose in (True, False) * 3:
            one.register(Noting(id=1, n=1), "c")
            if lose:
                line.lose(load("model/flush").sha.encode())
            one.flush()
        line.lose(load("model/leave").sha.encode())
        one.close()
        assert line.lost == 4
    assert [found["n"] for found in completed()] == [8]
    assert len(noted("flush")) == 7


def test_a_server_that_is_away_for_long(make: Any, redis_client: redis.Redis) -> None:
    """What a fold can be repeated by outlasts that, and goes when the record has gone."""
    one, other = make(), make()
    for each in (one, other):
        each.register(Noting(id=1, n=1))
    one.flush()
    assert redis_client.pttl("model.senders:{Noting.1}") > 3600_000
    other.close()
    assert redis_client.pttl("model.senders:{Noting.1}") > 3600_000
    one.close()
    assert 0 < redis_client.pttl("model.senders:{Noting.1}") <= 600_000


@pytest.fixture
def line(redis_server: RedisServer) -> Iterator[LossyLine]:
    """A line to the server that breaks on demand."""
    lossy = LossyLine(redis_server.port)
    yield lossy
    lossy.close()


def test_redis_away_for_a_time(redis_server: RedisServer, url: str) -> None:
    """What was registered stays in memory and is folded when the server is back."""
    with RedisServer() as own, Connections(own.url("phonon")) as made:
        one = Registry(connections=made)
        one.register(Noting(id=1, n=1))
        own.kill()
        one.register(Noting(id=1, n=10))
        with pytest.raises((redis.ConnectionError, OSError)):
            one.flush()
        with pytest.raises((redis.ConnectionError, OSError)):
            one.register(Noting(id=2, n=1))
        own.start()
        one.close()
    assert [found["n"] for found in completed()] == [11]


def test_the_thread_outlives_every_error(make: Any, made: Connections) -> None:
    class Quick(Noting):
        FLUSH_SECONDS = 0.05

    one = make()
    failed = []

    def fail() -> None:
        if not failed:
            failed.append(True)
            raise RuntimeError("nobody has thought of this")

    one._adopt = fail
    one.register(Quick(id=1, n=1))
    wait_for(lambda: failed and Quick.read(1, made).n == 1)


def test_used_again_after_its_end(make: Any, made: Connections) -> None:
    class Quick(Noting):
        FLUSH_SECONDS = 0.05

    one = make()
    for n in range(1, 4):
        one.register(Quick(id=n, n=1))
        wait_for(lambda n=n: Quick.read(n, made).n == 1)  # type: ignore[misc]
        one.close()
    assert len(completed(Quick)) == 3


def test_a_forked_child_has_nothing_of_its_parent(make: Any, made: Connections) -> None:
    one = make()
    one.register(Noting(id=1, n=1))
    child = os.fork()
    if child == 0:
        try:
            assert one.models == {}
            one.register(Noting(id=1, n=10))
            one.close()
            os._exit(0 if completed() == [] else 3)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    one.close()
    assert [found["n"] for found in completed()] == [11]


def test_two_models_of_one_name(make: Any) -> None:
    one = make()
    one.register(Noting(id=1, n=1))
    twin = type("Noting", (Noting,), {})
    with pytest.raises(ConfigurationError, match="two models are called 'Noting'"):
        one.register(twin(id=1, n=1))


def test_the_registry_of_the_process(url: str) -> None:
    """The functions of the module, and phonon's own test of configure."""
    connections.connect(url)
    try:
        registry.configure(max_entries=12)
        assert registry.registry.max_entries == 12
        registry.register(Noting(id=1, n=1))
        registry.flush()
        assert Noting.read(1).n == 1
        asyncio.run(registry.register_async(Noting(id=1, n=1)))
        registry.close()
        assert [found["n"] for found in completed()] == [2]
    finally:
        registry.configure()
        assert connections.connection is not None
        connections.connection.close()
        connections.connection = None


def test_not_connected() -> None:
    with pytest.raises(ConfigurationError, match="not connected"):
        Registry().register(Noting(id=1))


def test_a_value_that_is_refused_is_not_registered(make: Any) -> None:
    one = make()
    one.register(Noting(id=1, n=2**63 - 1))
    with pytest.raises(FieldError):
        one.register(Noting(id=1, n=1))
    one.close()
    assert completed()[0]["n"] == 2**63 - 1

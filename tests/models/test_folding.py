"""Folding in Redis: all or nothing, exact numbers, bounds, repetitions, long collections."""

from __future__ import annotations

import functools
import operator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from phonon_kombu.errors import FieldError, FieldFull, FieldMismatch, FieldOverflow
from phonon_kombu.phonon.fields import (
    CountDistinct,
    Diff,
    Histogram,
    Layout,
    ListAppend,
    Max,
    Mean,
    Min,
    SetAppend,
    Sum,
    TopN,
    WindowedList,
)
from phonon_kombu.store.client import Link
from tests.lua.machine import connect
from tests.servers import RedisServer

LARGEST = 2**63 - 1


def fold(link: Link, layout: Layout, name: str, **values: Any) -> None:
    layout.fold(link, layout.keys(name), layout.encode_delta(values))


def picture(client: redis.Redis) -> dict[bytes, bytes]:
    """All keys, as they would be dumped."""
    return {key: client.dump(key) for key in client.scan_iter()}  # type: ignore[misc]


def test_nothing_is_folded_of_a_record_that_is_refused(
    link: Link, redis_client: redis.Redis
) -> None:
    """The refused field stands last: what stands before it is not written either."""
    layout = Layout({"a": Sum(), "l": ListAppend(), "t": TopN(), "s": SetAppend(2), "z": Sum()})
    fold(link, layout, "x", a=1, l=1, t=1, s=[1, 2], z=LARGEST)
    before = picture(redis_client)
    with pytest.raises(FieldOverflow, match="range: z"):
        fold(link, layout, "x", a=1, l=2, t=2, z=1)
    with pytest.raises(FieldFull, match=":s"):
        fold(link, layout, "x", a=1, l=2, t=2, s=3)
    assert picture(redis_client) == before


@given(a=st.integers(-LARGEST, LARGEST), b=st.integers(-LARGEST, LARGEST))
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_whole_numbers_are_exact_or_refused(link: Link, a: int, b: int) -> None:
    check_sum(link, a, b)


@given(
    values=st.lists(
        st.floats(-1e300, 1e300) | st.floats(-1e-15, 1e-15) | st.floats(-9.0, 9.0), max_size=8
    )
)
@example(values=[0.1, 1e-17, 1e-18])
@example(values=[1e-300, 5e-324])
@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_sums_of_floats_are_those_of_python(link: Link, values: list[float]) -> None:
    """However small: no digit is lost between two folds."""
    layout = Layout({"n": Sum(float), "d": Diff(float), "m": Mean(float)})
    keys = layout.keys("floats")
    link.command(b"DEL", keys.row)
    for value in values:
        fold(link, layout, "floats", n=value, d=value, m=value)
    total = functools.reduce(operator.add, values, 0.0)
    mean = total / len(values) if values else None
    assert layout.read(link, keys) == {"n": total, "d": 0.0 - total, "m": mean}


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("off", range(-2, 3))
@pytest.mark.parametrize("half", [2**62, 2**62 + 10**9, LARGEST, 9 * 10**18, 10**9 - 1])
def test_whole_numbers_at_the_edge(link: Link, sign: int, off: int, half: int) -> None:
    check_sum(link, sign * half, sign * (LARGEST - half + off))


def check_sum(link: Link, a: int, b: int) -> None:
    layout = Layout({"n": Sum()})
    link.command(b"FLUSHALL")
    if abs(b) > LARGEST:
        with pytest.raises(FieldError):
            fold(link, layout, "x", n=b)
        return
    fold(link, layout, "x", n=a)
    if abs(a + b) > LARGEST:
        with pytest.raises(FieldOverflow):
            fold(link, layout, "x", n=b)
        assert layout.read(link, layout.keys("x")) == {"n": a}
    else:
        fold(link, layout, "x", n=b)
        assert layout.read(link, layout.keys("x")) == {"n": a + b}


def test_extremes_beyond_what_doubles_tell_apart(link: Link) -> None:
    layout = Layout({"low": Min(), "high": Max()})
    for n in (0, 2, 1, 3, -1):
        fold(link, layout, "x", low=2**62 + n, high=2**62 + n)
        fold(link, layout, "y", low=-(2**62) + n, high=-(2**62) + n)
    assert layout.read(link, layout.keys("x")) == {"low": 2**62 - 1, "high": 2**62 + 3}
    assert layout.read(link, layout.keys("y")) == {"low": -(2**62) - 1, "high": -(2**62) + 3}


def test_floats_that_would_be_infinite(link: Link) -> None:
    layout = Layout({"n": Sum(float)})
    fold(link, layout, "x", n=1.7e308)
    with pytest.raises(FieldOverflow):
        fold(link, layout, "x", n=1.7e308)
    assert layout.read(link, layout.keys("x")) == {"n": 1.7e308}


def test_a_field_whose_type_was_changed(link: Link) -> None:
    before, after = Layout({"n": Sum(float)}), Layout({"n": Sum()})
    fold(link, before, "x", n=1.5)
    with pytest.raises(FieldMismatch, match="stored: n"):
        fold(link, after, "x", n=1)
    # A collection has its kind in its key: another kind is another aggregate.
    fold(link, Layout({"n": ListAppend()}), "x", n=1)
    fold(link, Layout({"n": SetAppend()}), "x", n=2)
    assert before.read(link, before.keys("x")) == {"n": 1.5}


def test_a_full_set_takes_what_it_has(link: Link) -> None:
    layout = Layout({"s": SetAppend(3)})
    fold(link, layout, "x", s=[1, 2, 3])
    fold(link, layout, "x", s=[3, 2])
    with pytest.raises(FieldFull):
        fold(link, layout, "x", s=[3, 4])
    assert layout.read(link, layout.keys("x")) == {"s": {1, 2, 3}}


def test_a_sender_repeats_itself(link: Link, redis_client: redis.Redis) -> None:
    layout = Layout({"n": Sum(), "l": ListAppend()})
    keys, delta = layout.keys("x"), layout.encode_delta({"n": 1, "l": 1})
    assert layout.fold(link, keys, delta, b"a", 1)
    assert not layout.fold(link, keys, delta, b"a", 1)
    assert layout.fold(link, keys, delta, b"b", 1)
    assert layout.fold(link, keys, delta, b"a", 2)
    assert not layout.fold(link, keys, delta, b"a", 1)
    assert layout.read(link, keys) == {"n": 3, "l": [1, 1, 1]}
    # A refused delta has not been sent: corrected, it may come under the same number.
    with pytest.raises(FieldOverflow):
        layout.fold(link, keys, layout.encode_delta({"n": LARGEST}), b"a", 3)
    assert layout.fold(link, keys, delta, b"a", 3)


def test_an_aggregate_lives_for_a_time(link: Link, redis_client: redis.Redis) -> None:
    layout = Layout({"n": Sum(), "l": ListAppend(), "c": CountDistinct()})
    keys = layout.keys("x")
    layout.fold(link, keys, layout.encode_delta({"n": 1, "l": 1, "c": 1}), ttl_ms=60_000)
    assert all(50_000 < redis_client.pttl(key) <= 60_000 for key in keys.all)  # type: ignore[operator]
    assert len(keys.all) == 3 and sorted(redis_client.keys()) == sorted(keys.all)  # type: ignore[arg-type,type-var]
    link.send((layout.drop_call(keys),))
    assert redis_client.keys() == []


def test_many_entries_in_one_fold_and_in_many(link: Link) -> None:
    """More than a command, a reply or a slice takes at once."""
    layout = Layout(
        {
            "l": ListAppend(),
            "s": SetAppend(),
            "c": CountDistinct(),
            "w": WindowedList(4000),
            "t": TopN(1001),
        }
    )
    numbers = list(range(2501))
    for _ in range(2):
        fold(link, layout, "x", l=numbers, s=numbers, c=numbers)
        fold(link, layout, "x", w=[(n, n) for n in numbers], t=[(n, str(n)) for n in numbers])
    found = layout.read(link, layout.keys("x"))
    assert found["l"] == numbers * 2
    assert found["s"] == set(numbers)
    assert found["c"] == pytest.approx(len(numbers), rel=0.03)
    assert found["w"] == [(n, n) for n in numbers]
    assert found["t"] == [(n, str(n)) for n in numbers[:-1002:-1]]
    with pytest.raises(FieldError, match="'l' has 25010 entries, too many for one fold"):
        fold(link, layout, "x", l=numbers * 10)


def test_a_long_collection_is_not_decoded_without_a_link(link: Link) -> None:
    layout = Layout({"n": Sum(), "l": ListAppend(), "s": SetAppend()})
    fold(link, layout, "x", n=1, l=list(range(1001)), s=[1])
    keys = layout.keys("x")
    reply = link.send((layout.read_call(keys),))[0]
    assert layout.decode(reply) == {"n": 1, "l": None, "s": {1}}
    assert layout.decode(reply, link, keys)["l"] == list(range(1001))


def test_many_slots_of_the_row(link: Link) -> None:
    edges = list(range(600))
    layout = Layout({"m": Mean(), "h": Histogram(edges), "n": Sum()})
    fold(link, layout, "x", m=[1, 2], h=edges, n=7)
    found = layout.read(link, layout.keys("x"))
    assert found == {"m": 1.5, "h": [0, *[1] * 600], "n": 7}


def test_memory_does_not_grow_with_what_is_folded(link: Link, redis_client: redis.Redis) -> None:
    layout = Layout(
        {"n": Sum(), "t": TopN(5), "w": WindowedList(5), "m": Mean(), "h": Histogram([1])}
    )
    sizes = []
    for n in range(600):
        fold(link, layout, "x", n=n, t=(n, f"{n:05}"), w=(n, f"{n:05}"), m=n, h=n)
        if n in (99, 599):
            keys = layout.keys("x").all
            sizes.append(sum(len(redis_client.dump(key) or b"") for key in keys))  # type: ignore[arg-type]
    assert sizes[1] <= sizes[0] * 1.2


def test_processes_fold_at_once(redis_server: RedisServer, redis_db: str) -> None:
    layout = Layout({"n": Sum(), "s": SetAppend(), "l": ListAppend(), "top": Max()})

    def work(me: int) -> None:
        link = connect(redis_server)
        for n in range(50):
            fold(link, layout, "x", n=1, s=n, l=me, top=me * 100 + n)
        link.close()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    link = connect(redis_server)
    found = layout.read(link, layout.keys("x"))
    link.close()
    assert found["n"] == 200 and found["s"] == set(range(50)) and found["top"] == 349
    assert sorted(found["l"]) == [me for me in range(4) for _ in range(50)]

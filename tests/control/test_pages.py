"""Jobs page by page, and the cursors between."""

from __future__ import annotations

from typing import Any

import pytest
import redis
from celery import Celery

from phonon_kombu.control import JobInfo, Operator
from phonon_kombu.errors import ConfigurationError
from tests.control.holder import holding


def listing(operator: Operator, limit: int = 7, **where: Any) -> list[JobInfo]:
    found, cursor = [], None
    while True:
        page = operator.page(limit=limit, cursor=cursor, **where)
        assert len(page.jobs) <= limit or page.jobs[-1].state == "stalled"
        found += page.jobs
        cursor = page.cursor
        if cursor is None:
            return found


def test_pages_hold_all_jobs_in_order(app: Celery, operator: Operator) -> None:
    add = app.signature("shop.add", (1, 1))
    mail = app.signature("shop.mail", ("x",))
    # Of one millisecond they come in the order of their ids.
    ids = [(add if n % 3 else mail).apply_async(task_id=f"t{n:02}").id for n in range(60)]
    others = [add.apply_async(queue="other", task_id=f"o{n:02}").id for n in range(20)]
    operator.stall(*ids[-5:])
    with holding(app, 10):
        for queue, expected in (("shop", ids[:-5]), ("other", others), (None, others + ids[:-5])):
            found = listing(operator, queue=queue)
            assert [j.id for j in found if j.state != "stalled"] == expected
        assert {j.id for j in found if j.state == "stalled"} == set(ids[-5:])
        assert [j.id for j in listing(operator, state="claimed")] == ids[:10]
        assert [j.id for j in listing(operator, task="shop.mail", state="ready")] == ids[12:55:3]
        assert [j.id for j in operator.jobs(state="ready", task="shop.mail")] == ids[12:55:3]
        assert [j.id for j in operator.jobs("other")] == others


def test_pages_by_age(app: Celery, operator: Operator, redis_client: redis.Redis) -> None:
    add = app.tasks["shop.add"]
    old = [add.apply_async((n, n), task_id=f"a{n}").id for n in range(10)]
    for task_id in old:
        redis_client.zincrby(operator.keys("shop").published, -7200_000, task_id)
    young = [add.apply_async((n, n), task_id=f"b{n}").id for n in range(10)]
    assert [j.id for j in listing(operator, older_than_seconds=3600)] == old
    assert [j.id for j in listing(operator, older_than_seconds=0)] == old + young
    # Longer ago than Redis's clock counts.
    assert listing(operator, older_than_seconds=30_000 * 86_400) == []
    with pytest.raises(ConfigurationError, match="is not known"):
        operator.page(state="stalled", older_than_seconds=1)


def test_a_page_is_a_bounded_look(app: Celery, operator: Operator) -> None:
    """A rare task in a long queue: pages may be empty, and the end is reached all the same."""
    add, mail = app.tasks["shop.add"], app.tasks["shop.mail"]
    add.delay(1, 1)
    script, item = operator.job("shop")._script("job/append"), operator.item(next(operator.jobs()))
    operator.link.send([(script, (b"%d" % n, item, b"")) for n in range(30_000)])
    wanted = mail.delay("x").id
    pages, cursor = [], None
    while True:
        page = operator.page(task="shop.mail", limit=10, cursor=cursor)
        pages.append([job.id for job in page.jobs])
        cursor = page.cursor
        if cursor is None:
            break
    assert [task_id for page in pages for task_id in page] == [wanted]
    assert 20 < len(pages) < 40


def test_a_cursor_of_a_queue_that_is_gone(app: Celery, operator: Operator) -> None:
    for queue in ("a", "b", "c"):
        for _ in range(5):
            app.tasks["shop.add"].apply_async((1, 1), queue=queue)
    page = operator.page(limit=7)
    assert [job.queue for job in page.jobs] == ["a"] * 5 + ["b"] * 2
    with app.connection_for_write() as connection:
        connection.default_channel.queue_delete("b")
    assert [job.queue for job in operator.page(cursor=page.cursor).jobs] == ["c"] * 5


def test_pages_of_names_that_are_no_utf8(operator: Operator) -> None:
    names = ["", "\udce9", "[red]*/%", "\u2028"]
    for queue in names:
        for name in names:
            operator.session.job(f"q{queue}").put("x", id=f"j{name}")
    expected = [(f"q{queue}", f"j{name}") for queue in names for name in names]
    found = [(job.queue, job.id) for job in listing(operator, limit=1)]
    assert len(found) == len(expected) and set(found) == set(expected)


@pytest.mark.parametrize(
    "options",
    [{"state": "lost"}, {"limit": 0}, {"limit": 1000}, {"cursor": "??"}, {"cursor": "shop/lost/"},
     {"cursor": "shop/ready/x:y"}, {"cursor": "shop/claimed/nan:y"}, {"cursor": "shop/stalled/x"},
     {"older_than_seconds": -1}, {"older_than_seconds": "a day"}],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(operator: Operator, options: dict[str, Any]) -> None:
    operator.session.job("shop").put("x")
    with pytest.raises(ConfigurationError):
        operator.page(**options)

"""The connections of a consumer break at any command: each message is delivered once.

All messages are acknowledged when they are delivered, so that nothing may come twice either: an
acknowledgement on its way is not forgotten, whichever of several in one write was answered last.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from phonon_kombu.store.keys import queue_keys
from tests.faults.proxy import Proxy, When
from tests.kombu.exam import Broker, DrainPump, Inbox
from tests.kombu.worker import Worker
from tests.servers import wait_for

pytestmark = [
    pytest.mark.phonon_only("stock delivers again what it had not acknowledged in time"),
    pytest.mark.timeout(180),
]

#: Consumers at a time: they wait most of the time.
AT_ONCE = 8
QUEUES, EACH, PREFETCH = ("a", "b", "c"), 4, 6
MESSAGES = [f"{queue}{number}" for queue in QUEUES for number in range(EACH)]


def consume(broker: Broker, later: str, at: int, when: When) -> tuple[Counter[str], int, int]:
    """Consume all with a cut at the command `at` since the consumer has begun with the last of the
    queues: what was delivered how often, how many commands there were and how many breaks.

    The queues named in `later` are added when all messages of the others have been delivered; the
    acknowledgements of the last of these are still to be sent.
    """
    inbox, prefix = Inbox(), f"{later}{when}{at}."
    options = {"global_keyprefix": prefix}
    with Broker("phonon", broker.server) as own, Proxy(broker.server.port) as proxy:
        with own.connection(transport_options=options) as connection:
            producer = connection.Producer()
            for message in MESSAGES:
                producer.publish(message, routing_key=message[0])
        queues = [queue for queue in QUEUES if queue not in later]
        worker = Worker(
            own, DrainPump, queues, inbox, prefetch_count=PREFETCH,
            url=f"phonon://127.0.0.1:{proxy.port}/0", transport_options=options,
        )  # fmt: skip
        if later:
            worker.until(inbox.has(len(queues) * EACH))
        before = len(proxy.commands)
        if at:
            # What tries a second time by itself fails, too.
            proxy.cut_at(before + at, when, refused=2)
        for queue in later:
            worker.add(queue)
        worker.until(inbox.has(len(MESSAGES)))
        items = [queue_keys(queue, prefix).items for queue in QUEUES]
        wait_for(lambda: not own.client.exists(*items), 10, message="not acknowledged")
        for _ in range(3):
            worker.step()
        commands = len(proxy.commands) - before
    return Counter(inbox.bodies), commands, len(worker.errors)


@pytest.mark.parametrize("later", ["", "c"], ids=["at once", "one later"])
def test_each_message_once_wherever_the_connection_breaks(broker: Broker, later: str) -> None:
    found, count, breaks = consume(broker, later, 0, "sent")
    assert (found, breaks) == (Counter(MESSAGES), 0) and count >= 6
    points: list[tuple[int, When]] = [
        (at, when) for at in range(1, count + 1) for when in ("sent", "answered")
    ]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(lambda point: consume(broker, later, *point), points))
    wrong = {
        point: found - Counter(MESSAGES) + (Counter(MESSAGES) - found)
        for point, (found, *_) in zip(points, outcomes, strict=True)
        if found != Counter(MESSAGES)
    }
    assert not wrong
    # The breaks were noticed, at most points.
    assert sum(breaks > 0 for *_, breaks in outcomes) > len(points) / 2

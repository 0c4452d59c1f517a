"""A program that ends without closing anything."""

from __future__ import annotations

import subprocess
import sys

import pytest
from kombu import Queue

from tests.kombu.exam import Broker
from tests.servers import wait_for

PROGRAM = """
import queue as queues
import sys

import phonon_kombu
from kombu import Connection
connection = Connection(sys.argv[1])
queue = connection.SimpleQueue("q")
first, second = queue.get(timeout=10), queue.get(timeout=10)
first.ack()
{end}
"""


@pytest.mark.parametrize("end", ["", "sys.exit(3)", "raise ValueError"])
def test_acknowledged_is_acknowledged_and_the_rest_is_back(broker: Broker, end: str) -> None:
    broker.send("q", 1, 2, 3)
    subprocess.run(
        [sys.executable, "-c", PROGRAM.format(end=end), broker.url], check=False, timeout=60
    )
    # At once: nobody has to find it dead.
    assert broker.size("q") == 2
    assert broker.get_all("q") == [2, 3]


@pytest.mark.phonon_only("stock knows no nodes")
def test_it_says_goodbye(broker: Broker) -> None:
    with broker.connection() as connection:
        Queue("q")(connection.default_channel).declare()
    program = PROGRAM.partition("first")[0] + "try: queue.get(timeout=1)"
    subprocess.run(
        [sys.executable, "-c", program + "\nexcept queues.Empty: pass", broker.url],
        check=True, timeout=60,
    )  # fmt: skip
    wait_for(lambda: not broker.client.exists("node.beats:{nodes}"), message="it is thought alive")

"""The victim of the crash tests: a process that does a little of everything and tells of it."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kombu import Connection, Consumer, Message, Queue

import phonon_kombu  # noqa: F401  (makes phonon:// known to kombu)

QUEUE = "q"
#: Victims are forked from a process that has imported all this.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload([__name__, "phonon_kombu.transport", "redis"])


def options(prefix: str) -> dict[str, Any]:
    """Transport options of the victim and of those who come after it: soon to notice."""
    return {
        "global_keyprefix": prefix, "presence_grace": 0.2,
        "socket_connect_timeout": 5, "socket_timeout": 20,
    }  # fmt: skip


def consumer(connection: Connection, on_message: Callable[[Message], Any], prefetch: int) -> None:
    """Begin to consume."""
    Consumer(
        connection, [Queue(QUEUE)], on_message=on_message, accept=["json"],
        prefetch_count=prefetch,
    ).consume()  # fmt: skip


def victim(url: str, prefix: str, log: str) -> None:
    """Publish 5, take and acknowledge 5, requeue, shut down with prefetched messages.

    Writes into the file `log` what it has done, a line for each step: ``published``,
    ``acking``, ``requeuing`` and the message's number. A killed process's file stays.
    """
    sink = os.open(log, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def say(what: str, number: Any) -> None:
        os.write(sink, f"{what} {number}\n".encode())

    with Connection(url, transport_options=options(prefix)) as connection:
        producer = connection.Producer(routing_key=QUEUE)

        def publish(numbers: range) -> None:
            for number in numbers:
                headers = {"id": f"m{number}", "task": "t"}
                producer.publish(number, headers=headers, declare=[Queue(QUEUE)])
                say("published", number)

        publish(range(5))
        taken: list[int] = []

        def on_message(message: Message) -> None:
            number = message.payload
            if number == 3 and not message.delivery_info.get("redelivered"):
                say("requeuing", number)
                message.requeue()
                return
            taken.append(number)
            if number < 8:
                say("acking", number)
                message.ack()

        consumer(connection, on_message, prefetch=3)
        while len(taken) < 5:
            connection.drain_events(timeout=10)
        publish(range(5, 13))
        while len(taken) < 9:
            connection.drain_events(timeout=10)
        # Three are in hand at the most, one of them handed over and not acknowledged.
    say("left", "in good order")


def start(port: int, prefix: str, log: Path) -> Any:
    """Start a victim; returns its process."""
    process = CONTEXT.Process(
        target=victim, args=(f"phonon://127.0.0.1:{port}/0", prefix, str(log)), daemon=True
    )
    process.start()
    return process


def told(log: Path) -> dict[str, set[int]]:
    """What a victim has told: step -> numbers."""
    found: dict[str, set[int]] = {
        step: set() for step in ("published", "acking", "requeuing", "left")
    }
    for line in log.read_text().splitlines() if log.exists() else ():
        step, number = line.split(" ", 1)
        found[step].add(int(number) if number.isdigit() else 0)
    return found

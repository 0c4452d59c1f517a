"""A server that does not speak TLS holds nobody up: the handshake ends in four seconds."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest
from celery import Celery
from kombu import Connection

from phonon_kombu.phonon.connections import Connections
from phonon_kombu.store.client import CONNECTION_ERRORS
from phonon_kombu.store.patience import GREETING_SECONDS
from phonon_kombu.thoonk import Thoonk
from phonon_kombu.thoonk.aio import Thoonk as AioThoonk


class Mute:
    """Accepts connections, counts them, and says nothing, as Redis does to a TLS handshake."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.peers: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                self.peers.append(self.listener.accept()[0])
            except OSError:
                return


@pytest.fixture
def mute() -> Iterator[Mute]:
    mute = Mute()
    yield mute
    mute.listener.close()
    for peer in mute.peers:
        peer.close()


def transport(url: str) -> None:
    # Connection.connect() would be kombu's own two tries, two seconds apart, of whatever error.
    with Connection(url) as connection:
        connection.transport.establish_connection()


def backend(url: str) -> None:
    app = Celery("shop", backend=url, set_as_current=False)
    app.backend.link.command(b"PING")


def thoonk(url: str) -> None:
    with Thoonk(url) as session:
        session.link.command(b"PING")


def thoonk_by_options(url: str) -> None:
    port = int(url.rpartition(":")[2].partition("/")[0])
    with Thoonk("127.0.0.1", port, 0, ssl=True) as session:
        session.link.command(b"PING")


def aio(url: str) -> None:
    async def use() -> None:
        async with AioThoonk(url) as session:
            await session.link.command(b"PING")

    asyncio.run(use())


def phonon(url: str) -> None:
    with Connections(url) as connections:
        connections.hosts[0].link.command(b"PING")


@pytest.mark.parametrize("way", [transport, backend, thoonk, thoonk_by_options, aio, phonon])
def test_the_handshake_is_bounded_and_tried_once(mute: Mute, way: Callable[[str], Any]) -> None:
    began = monotonic()
    with pytest.raises(CONNECTION_ERRORS, match="TLS") as caught:
        way(f"phonons://127.0.0.1:{mute.port}/0")
    spent = monotonic() - began
    # Twice would be eight seconds; a loaded machine may take its time for once.
    assert len(mute.peers) == 1, (spent, caught.value)
    assert GREETING_SECONDS - 1 < spent < 20

"""A bus whose messages are acknowledged by models."""

from __future__ import annotations


class Message:
    """A message of a bus, which may have a name for it."""

    def __init__(self, name: str | None = None) -> None:
        self.id = name
        self.finished = 0

    def finish(self) -> None:
        self.finished += 1

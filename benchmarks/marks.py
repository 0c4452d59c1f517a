"""Which tasks ran, and when: a small file shared by memory mapping.

A worker must be able to report every task it ran without slowing down the thing being measured, so
a mark is two stores into shared memory: no system call, no message, no lock.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass
from pathlib import Path

_TIME = struct.Struct("d")


@dataclass(frozen=True)
class MarksSummary:
    """What a finished run left: the first and last time (seconds, monotonic) and the repeats."""

    first_seconds: float
    last_seconds: float
    ran_again: int


class Marks:
    """One time and one counter for each task number, in a mapped file.

    Times are ``time.monotonic()``, which all processes of one machine share on Linux and macOS.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._tasks = len(self._map) // (_TIME.size + 1)
        self._counts = self._tasks * _TIME.size

    @classmethod
    def create(cls, path: Path, tasks: int) -> Marks:
        """Make the file of marks for `tasks` tasks, none of which ran yet."""
        path.write_bytes(bytes(tasks * (_TIME.size + 1)))
        return cls(path)

    def set(self, number: int) -> None:
        """Note that task `number` runs now."""
        _TIME.pack_into(self._map, number * _TIME.size, time.monotonic())
        position = self._counts + number
        self._map[position] = min(self._map[position] + 1, 255)

    def ran(self) -> int:
        """How many different tasks have run so far."""
        return self._tasks - self._map[self._counts :].count(0)

    def summary(self) -> MarksSummary:
        """Times and repeats of a run in which every task ran."""
        times = [
            _TIME.unpack_from(self._map, number * _TIME.size)[0] for number in range(self._tasks)
        ]
        counts = self._map[self._counts :]
        return MarksSummary(min(times), max(times), sum(counts) - self._tasks)

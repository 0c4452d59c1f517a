"""In the midst of something: where a signal or an exception may come at any line."""

from __future__ import annotations

from collections.abc import Callable


class Midst:
    """What is done within ``with midst:`` may be interrupted at any line: by the handler of a
    signal that cancels a consumer or closes the connection, or by an exception that it raises.

    Arguments:
        interrupted: called after an exception that is no error, as KeyboardInterrupt.
    """

    __slots__ = ("depth", "pending", "_interrupted")

    def __init__(self, interrupted: Callable[[], None]) -> None:
        self.depth = 0
        #: What is to be called at the end of the outermost.
        self.pending: set[Callable[[], None]] = set()
        self._interrupted = interrupted

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self._interrupted()
        try:
            while self.pending and self.depth == 1:
                self.pending.pop()()
        finally:
            self.depth -= 1
        if self.pending and not self.depth:
            self._settle()  # a handler has come between the last two lines

    @property
    def busy(self) -> bool:
        """Whether somebody is in the midst of something."""
        return self.depth > 0

    def soon(self, callback: Callable[[], None]) -> None:
        """Call `callback` as soon as nobody is in the midst of anything."""
        self.pending.add(callback)
        if not self.depth:
            self._settle()

    def _settle(self) -> None:
        with self:
            pass

"""A client process: ``python -m benchmarks.client LOAD SPEC``, started afresh for every run.

It talks with the parent in lines of JSON: it prepares and says ``{"event": "ready"}``; upon
``go`` it does the measured part and says ``{"event": "result", ...}``; upon ``quit`` it checks what
it left behind, says ``{"event": "end", ...}`` and exits. So the parent can read Redis's counters
exactly around the measured part, with imports and connecting outside of it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any


class Talk:
    """The client's side of the conversation with the parent."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self._spec = spec

    def ready(self) -> None:
        """Say that all is prepared and wait for ``go``."""
        self._say("ready")
        self._expect("go")

    def result(self, **values: Any) -> None:
        """Hand over the figures of the measured part and wait for ``quit``."""
        self._say("result", **values)
        self._expect("quit")

    def end(self, **values: Any) -> None:
        """Hand over what the check afterwards found."""
        self._say("end", **values)

    def run(self, function: Callable[[], None]) -> None:
        """Run the measured part, under cProfile where the parent asked for it."""
        path = self._spec.get("cprofile")
        if path is None:
            function()
            return
        import cProfile

        profile = cProfile.Profile()
        profile.runcall(function)
        profile.dump_stats(path)

    def _say(self, event: str, **values: Any) -> None:
        print(json.dumps({"event": event, **values}), flush=True)

    def _expect(self, word: str) -> None:
        line = sys.stdin.readline().strip()
        if line != word:
            sys.exit(f"expected {word!r} from the parent, got {line!r}")


def main() -> None:
    """Run the load named on the command line."""
    from benchmarks.loads import LOADS

    load, spec = sys.argv[1], json.loads(sys.argv[2])
    LOADS[load](Talk(spec), spec)


if __name__ == "__main__":
    main()

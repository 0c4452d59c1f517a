"""Publishers as programs of their own: green threads must patch before anything is imported.

``python -m tests.celery.publish_program HOW TAG COUNT`` publishes COUNT tasks and prints
their ids, one a line. HOW is ``gevent``, ``eventlet``, ``threads``, ``fork`` or ``plain``.
"""

from __future__ import annotations

import os
import sys
from typing import Any

LANES = 10


def publish(app: Any, tag: str, count: int) -> list[str]:
    return [app.tasks["record"].delay(tag, number).id for number in range(count)]


def green(how: str, app: Any, tag: str, count: int) -> list[str]:
    """Publish from green threads, with results waited for in the same way."""
    if how == "gevent":
        from gevent.pool import Pool

        batches = Pool(LANES).map(lambda _n: publish(app, tag, count // LANES), range(LANES))
    else:
        from eventlet import GreenPool

        pool = GreenPool(LANES)
        batches = list(pool.imap(lambda _n: publish(app, tag, count // LANES), range(LANES)))
    return [task_id for batch in batches for task_id in batch]


def threads(app: Any, tag: str, count: int) -> list[str]:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(LANES) as pool:
        batches = pool.map(lambda _n: publish(app, tag, count // LANES), range(LANES))
        return [task_id for batch in batches for task_id in batch]


def fork(app: Any, tag: str, count: int) -> list[str]:
    """Publish, fork as a web server does, and publish in all children and the parent at once."""
    before = publish(app, tag, 5)
    pipes = []
    for _ in range(LANES - 1):
        reader, writer = os.pipe()
        if os.fork() == 0:
            status = 1
            try:
                os.close(reader)
                mine = publish(app, tag, count // LANES)
                os.write(writer, "\n".join(mine).encode())
                status = 0
            finally:
                os._exit(status)
        os.close(writer)
        pipes.append(reader)
    rest = publish(app, tag, count // LANES - 5)
    for reader in pipes:
        with os.fdopen(reader) as lines:
            rest += lines.read().split()
        assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
    # The parent's connection has not suffered from what the children did.
    return [*before, *rest]


def main(how: str, tag: str, count: int) -> None:
    if how == "gevent":
        from gevent import monkey

        monkey.patch_all()
    elif how == "eventlet":
        import eventlet

        eventlet.monkey_patch()
    from tests.celery.app import app_from_environment

    app = app_from_environment()
    if how in ("gevent", "eventlet"):
        ids = green(how, app, tag, count)
    elif how == "plain":
        ids = publish(app, tag, count)
    else:
        ids = {"threads": threads, "fork": fork}[how](app, tag, count)
    print("\n".join(ids))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

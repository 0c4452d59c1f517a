"""A small Celery application on phonon_kombu.

    celery -A shop worker        # in one terminal
    python send.py               # in another, in the same directory

Without BROKER_URL both use an embedded Redis that they start by themselves. On a server of your
own: BROKER_URL=phonon://localhost:6379/0
"""

import os
import time

from celery import Celery
from celery.utils.log import get_task_logger

app = Celery("shop", broker=os.environ.get("BROKER_URL", "phonon+embedded://"))
app.conf.update(
    task_ignore_result=True,
    # A task is done when it has run, not when a worker has fetched it.
    task_acks_late=True,
)
logger = get_task_logger(__name__)


@app.task
def pack(order: int) -> None:
    """Pack one order, and have it delivered."""
    time.sleep(0.1)
    logger.info("order %d is packed", order)
    deliver.delay(order)


@app.task
def deliver(order: int) -> None:
    """Deliver one order."""
    logger.info("order %d is on its way", order)

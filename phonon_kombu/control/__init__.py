"""Operating on jobs: look at them, set them aside, let them run again, delete them.

::

    from phonon_kombu.control import Operator

    with Operator(app) as operator:                  # or Operator("phonon://localhost:6379/0")
        operator.status()                            # counts per state of each queue
        operator.find("3f1c...")                     # where a task is, and who has it
        operator.stall("3f1c...", reason="no paper")
        operator.retry(queue="celery", task="shop.print_label")
        operator.pause("celery")

``Celery(control="phonon_kombu.control:Control")`` gives an application the same as
``app.control.jobs``, and an ``app.control.revoke`` that deletes what waits.
"""

from __future__ import annotations

from .operator import Operator
from .records import JobInfo, Node, Outcome, Page, QueueStatus, Refusal
from .revoke import Control

__all__ = [
    "Control",
    "JobInfo",
    "Node",
    "Operator",
    "Outcome",
    "Page",
    "QueueStatus",
    "Refusal",
]

"""The sessions of `../phonon_sessions`, with Celery as the message bus.

    celery -A sessions worker     # in one terminal, or several
    python send.py                # in another, in the same directory

Without BROKER_URL all use an embedded Redis that they start by themselves.
"""

import os

from celery import Celery
from celery.signals import worker_process_shutdown, worker_shutdown

from phonon_kombu import phonon

URL = os.environ.get("BROKER_URL", "phonon+embedded://")

app = Celery("sessions", broker=URL)
# A task is acknowledged when it has run, and it has run when what it counted is in Redis.
app.conf.update(task_acks_late=True, task_ignore_result=True, worker_redirect_stdouts=False)

phonon.connections.connect(URL)


class Session(phonon.model.Model):
    TTL = 1.0  # seconds without an event after which a process is done with a user

    id = phonon.field.ID()
    impressions = phonon.field.SumField()
    clicks = phonon.field.SumField()

    def on_complete(self):
        print(f"user {self.id}: {self.impressions} impressions, {self.clicks} clicks", flush=True)


@app.task
def count(events):
    """Count a batch of events. They are merged here, and folded into Redis together."""
    for event in events:
        phonon.registry.register(
            Session(
                id=event["user_id"],
                impressions=int(event["type"] == "unit_impression"),
                clicks=int(event["type"] == "unit_click"),
            )
        )
    phonon.registry.flush()


@worker_process_shutdown.connect
@worker_shutdown.connect
def done(**_):
    """A process that ends is done with all users."""
    phonon.registry.close()

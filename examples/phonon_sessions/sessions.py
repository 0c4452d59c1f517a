"""phonon's own example: impressions and clicks of each user, counted by many processes.

    python sessions.py        # as many of them at once as you like

Each process merges what comes from the message bus; the last one to be done with a user writes the
session, with what all processes have counted. PHONON_HOSTS names Redis servers, with spaces between
them; without it an embedded one starts by itself.
"""

import json
import os

import nsq
from phonon_kombu import phonon

CONVERSION_EVENTS_TOPIC = "conversion_events"
QR_CLICKS_AND_IMPRESSIONS_AGGREGATOR = "qr_clicks_and_impressions_aggregator"


class Session(phonon.model.Model):
    TTL = 1.0  # seconds without an event after which a process is done with a user

    id = phonon.field.ID()
    impressions = phonon.field.SumField()
    clicks = phonon.field.SumField()

    def on_complete(self, msg):
        # Write the model to the database. You're guaranteed to have the global aggregate now.
        print(f"user {self.id}: {self.impressions} impressions, {self.clicks} clicks", flush=True)
        msg.finish()


def handle_message(msg):
    msg.enable_async()
    body = json.loads(msg.body)
    phonon.registry.register(
        Session(
            id=body["user_id"],
            impressions=int(body["type"] == "unit_impression"),
            clicks=int(body["type"] == "unit_click"),
        ),
        msg,
    )


if __name__ == "__main__":
    phonon.connections.connect(hosts=os.environ.get("PHONON_HOSTS", "phonon+embedded://").split())
    nsq.Reader(
        topic=CONVERSION_EVENTS_TOPIC,
        channel=QR_CLICKS_AND_IMPRESSIONS_AGGREGATOR,
        message_handler=handle_message,
        lookupd_http_addresses=["nsq01.example.com", "nsq02.example.com"],
        max_in_flight=10,
    )
    nsq.run()

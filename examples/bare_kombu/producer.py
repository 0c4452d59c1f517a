"""Publish some events. Run consumer.py once before: a queue gets what is sent after its binding."""

# A program without Celery imports the package once: that makes phonon:// known to kombu.
import phonon_kombu  # noqa: F401  isort: skip
from kombu import Connection

from queues import EVENTS, URL

with Connection(URL) as connection, connection.Producer(exchange=EVENTS) as producer:
    for number in range(1, 4):
        producer.publish({"order": number}, routing_key="order.paid", serializer="json")
    producer.publish({"mail": 1}, routing_key="mail.sent", serializer="json")
    print("4 events published, 3 of them about orders")

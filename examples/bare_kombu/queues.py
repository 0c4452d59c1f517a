"""What the producer and the consumer have to agree on."""

import os

from kombu import Exchange, Queue

URL = os.environ.get("BROKER_URL", "phonon+embedded://")
EVENTS = Exchange("events", type="topic")
#: Everything that happens to orders, and nothing else.
ORDERS = Queue("orders", EVENTS, routing_key="order.*")

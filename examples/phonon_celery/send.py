"""Sends 300 events of five users, ten to a task."""

import random

from sessions import count

kinds = ("unit_impression", "unit_impression", "unit_click")
for _ in range(30):
    count.delay(
        [{"user_id": random.randint(1, 5), "type": random.choice(kinds)} for _ in range(10)]
    )
print("300 events sent")

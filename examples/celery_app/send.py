"""Send some orders to the workers: ordinary ones first, then one in a hurry that overtakes them."""

from shop import pack

for order in range(1, 6):
    pack.apply_async((order,), priority=5)
# As on redis://, 0 is the most urgent priority.
pack.apply_async((0,), priority=0)
print("6 orders sent")

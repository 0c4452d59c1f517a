"""``celery phonon demo``: real workers parse the standard library, and every task is accounted for.

``sources`` finds and counts the files, ``app`` is the Celery application that both sides share,
``ledger`` is the account that the tasks keep in Redis, ``workers`` runs the worker processes,
``display`` shows the progress and the result, ``run`` ties them together.
"""

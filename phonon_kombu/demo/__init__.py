"""``celery phonon demo``: real workers parse the standard library, and every task is accounted for.

``sources`` finds and counts the files, ``app`` is the Celery application that both sides share,
``ledger`` is the account that the tasks keep in Redis, ``workers`` runs the worker processes,
``kill`` kills one of them, ``chord`` is the chord in the end, whose closer is killed, ``display``
shows the progress, ``report`` is the result, ``run`` ties them together.
"""

"""kombu's and celery's own integration suites, run on ``redis://`` and on ``phonon://``.

``python -m tests.upstream`` fetches the sources of the installed kombu and celery from the package
index, runs their ``t/integration`` on a private server with each scheme, and compares: what stock
passes, ours must pass. Nothing of theirs is kept in this repository. ``exclusions.py`` lists what
is left out, and why.
"""

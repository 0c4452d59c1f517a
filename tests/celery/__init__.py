"""Real Celery workers, as subprocesses, on a real Redis."""

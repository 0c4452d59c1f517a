"""Celery's result backend on phonon: single results, chords, aggregates, and what may break."""

"""The same load on kombu's ``redis://`` and on ``phonon://``, side by side.

Run it with ``python -m benchmarks``; ``benchmarks/README.md`` says how each figure is measured.
"""

"""Fields, models, registries, locks: phonon's own Python API."""

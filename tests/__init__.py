"""The tests of phonon_kombu; a package, so that its modules can share helpers."""

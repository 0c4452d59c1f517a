"""The operator's view and hands: ``phonon_kombu.control`` and its command line."""

"""phonon: who is alive, and what they hold."""

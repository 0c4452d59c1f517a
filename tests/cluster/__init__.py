"""Redis Cluster: all of a script's keys in one slot, computed and on three real nodes."""

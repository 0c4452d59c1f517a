"""The Python face of Thoonk's jobs and queues, on real servers and from real processes."""

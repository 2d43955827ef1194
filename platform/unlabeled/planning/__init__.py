"""What a run needs before it is started: memory, computation, traffic, reading, disk and days."""

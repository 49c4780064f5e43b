"""Programs that draw, one a file, each timed in a process of its own."""

"""One training step done by different loops; `python -m benchmarks.loops NAME WORK` runs one in this process."""

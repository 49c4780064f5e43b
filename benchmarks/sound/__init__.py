"""Hearing beside other programs: `python -m benchmarks.sound`."""

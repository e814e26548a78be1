"""Measurements of heygen_async beside what a user would pick instead: `python -m benchmarks --list`."""

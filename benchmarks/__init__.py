"""The benchmark suite: ``python -m benchmarks``; README.md beside this file says how to read it."""

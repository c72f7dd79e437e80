"""The benchmark suite: ``python -m benchmarks``. README.md beside this file explains how to read the results."""

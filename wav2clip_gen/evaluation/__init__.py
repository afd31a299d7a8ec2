"""Benchmarks of a family on held-out data, each with its counts and the level of chance."""

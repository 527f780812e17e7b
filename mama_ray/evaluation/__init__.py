"""Metric maths and protocols of the benchmarks; nothing here knows Ray."""

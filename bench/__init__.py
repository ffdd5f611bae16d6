"""Benchmarks: workloads with a fixed seed, against the named peer in the same run."""

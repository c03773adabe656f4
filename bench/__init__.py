"""Measurements of mpflow beside floors and peers: see docs/benchmarks.md. Workers import the nodes from here by name."""

"""Benchmarks: each runs with its peers in one command, interleaved, and compares the answers before the times."""

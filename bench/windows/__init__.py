"""Windowed features beside what one would write by hand: a part of the benchmark in each module."""

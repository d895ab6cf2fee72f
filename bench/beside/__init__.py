"""Lookups alone, and beside training sets and materializations."""

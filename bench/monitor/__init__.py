"""Monitoring: what profiling, pages and lookups beside it cost, and how far alarms can be trusted."""

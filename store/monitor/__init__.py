"""Monitoring: profiles of features, drift between them, freshness; kept under `data/monitor` of the feature repo."""

"""Online lookups by Larder beside Feast's server, a bare FastAPI app and plain Redis commands: `make bench-online`."""

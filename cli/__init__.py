"""The `larder` command."""

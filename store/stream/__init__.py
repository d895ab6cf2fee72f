"""The stream: events of windowed views from a push into the log, and from the log into tiles and landed files."""

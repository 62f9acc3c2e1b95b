"""The event store: an SQLite file that keeps every onset, offset and status."""

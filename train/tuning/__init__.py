"""Chooses the thresholds, filters and durations that turn posteriors into events, on validation clips."""

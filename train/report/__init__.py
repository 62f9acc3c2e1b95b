"""The HTML report of an evaluation: one file, without scripts or requests."""

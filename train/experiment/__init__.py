"""Experiments: many trainings that differ in rows and seeds, their scores, and the table that compares them."""

"""Scores of trained models: offline and streaming, with intervals, latencies and false alarms."""

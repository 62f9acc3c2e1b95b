"""Reads live streams, files and devices with PyAV, which no other package imports."""

"""Live streams, files and devices through PyAV; no other package imports it."""

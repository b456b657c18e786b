"""Metrics, verification and latency of written graphs. No torch."""

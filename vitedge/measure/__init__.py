"""Accuracy, latency and numerics of an artifact, on this machine or a remote device."""

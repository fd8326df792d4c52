"""Measuring an artifact on the device it ships to: nothing else in vitedge reads a clock for it."""

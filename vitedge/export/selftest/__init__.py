"""The selftest: every step that proves vitedge and a runtime on a machine, and its evidence."""

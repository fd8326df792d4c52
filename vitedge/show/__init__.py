"""Measurements and verdicts for eyes and CI: on a terminal, as pages, as files."""

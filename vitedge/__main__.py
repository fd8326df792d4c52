"""`python -m vitedge`."""

from vitedge.cli import run

run()

"""`python -m vitedge`."""

from vitedge.cli.main import run

run()

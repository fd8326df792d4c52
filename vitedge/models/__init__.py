"""Models: where they come from (sources), and our own architectures (zoo)."""

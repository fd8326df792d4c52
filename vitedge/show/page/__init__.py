"""Reports as HTML pages that need nothing else: no network, no script, one file under 2 MB."""

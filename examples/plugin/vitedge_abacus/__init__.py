"""What vitedge lacks: a runtime, a source of models, a kind of package."""

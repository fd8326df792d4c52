"""The kinds of package that are ours: one module each, and its templates."""

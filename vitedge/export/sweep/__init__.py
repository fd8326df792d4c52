"""Many exports as one search: which model, precision and recipe to ship on each target."""

"""Tables and lines for people at a terminal; rich is imported late."""

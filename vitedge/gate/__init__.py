"""Whether an artifact may ship: limits against evidence, with three answers."""

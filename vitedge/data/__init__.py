"""Images and their labels, as uint8 batches of a model's input size, without torch."""

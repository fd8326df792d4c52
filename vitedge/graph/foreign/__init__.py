"""Somebody's ONNX graph into the form that the rest of the house knows."""

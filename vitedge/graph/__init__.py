"""ONNX in, ONNX out: graphs are read, checked, rewritten and run, whoever exported them."""

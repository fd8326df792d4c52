"""What an artifact keeps of FP32: on images with labels, or on its golden images alone."""

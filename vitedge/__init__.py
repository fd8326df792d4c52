"""vitedge: Vision Transformers to INT8 on edge runtimes, with accuracy and latency proof."""

__version__ = "0.1.0"

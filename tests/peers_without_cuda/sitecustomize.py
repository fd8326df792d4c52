"""On PYTHONPATH: lets a `vitedge` of its own process import the peers; see the fixture `peers`."""

import torch

library = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):
    library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

"""What images are for, and what is said of sets that do not fit it."""

from __future__ import annotations

from typing import Literal

from vitedge.core.spec import Task

Role = Literal["calibration", "evaluation"]

TRUTHS: dict[Task, str] = {"segmentation": "masks", "detection": "boxes"}
"""What tasks are evaluated on that is more than a class for each image."""
BESIDE: dict[Task, str] = {
    "segmentation": "give a folder with images/ and masks/, or an .npz",
    "detection": "give a folder with images/ and annotations.json, or an .npz",
}
ACCEPTED = (
    "an image folder (class_name/*.png|jpg|jpeg|webp), an .npz with 'images' and 'labels', a .tar "
    "of WebDataset or a .parquet"
)

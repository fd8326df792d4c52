"""How the embedded SETR was trained: a small ViT with the PUP decoder, on the shapes we draw.

python -m examples.references.shapes_setr --output FILE     (minutes on two cores)
"""

from __future__ import annotations

from functools import partial

from examples.references import shapes
from examples.references.training import main

train = partial(shapes.train, max_lr=2e-3)

if __name__ == "__main__":
    main("shapes-setr", 5, train, shapes.measure)

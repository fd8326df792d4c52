"""A small sweep: few images, recipes that take a moment."""

import numpy as np

RECIPE = """
name = "{name}"
description = "of a test"
num_samples = 24
activations = "{activations}"
weights = "minmax"
"""


def write(folder, recipes, targets, images, duration_s=0.0, more=""):
    """Write sweep.toml, its recipes (estimators by name) and its `images`; returns its path."""
    for name, activations in recipes.items():
        text = RECIPE.format(name=name, activations=activations)
        (folder / f"{name}.toml").write_text(text)
    np.savez(folder / "few.npz", images=images.images[:60], labels=images.labels[:60])
    names = ", ".join(f'"{name}.toml"' for name in recipes)
    (folder / "sweep.toml").write_text(
        f"targets = {[*targets]}\ncalibrations = [{names}]\nduration_s = {duration_s}\n{more}\n"
        '[[models]]\neval_data = "few.npz"\n'
    )
    return folder / "sweep.toml"

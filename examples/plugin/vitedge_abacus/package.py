"""A kind of package: the artifact's model and labels as one archive."""

from __future__ import annotations

import zipfile

from vitedge.ship.package import copy_labels, copy_model


class Zip:
    name = "zip"
    title = "ZIP archive"
    runtimes = frozenset({"abacus", "onnxruntime", "openvino"})

    def write(self, bundle, folder):
        copy_model(bundle, folder)
        copy_labels(bundle, folder)
        paths = sorted(folder.iterdir())
        with zipfile.ZipFile(folder / "artifact.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in paths:
                archive.write(path, path.name)
                path.unlink()
        return ("unzip artifact.zip",)

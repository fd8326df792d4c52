"""Quantize one ONNX file with a peer that cannot share vitedge's environment (see peers.txt).

`python peer_worker.py PEER FP32.onnx IMAGES.npz OUT_FOLDER` writes OUT_FOLDER/model.onnx. It runs
under the peers' own Python, so it imports nothing of vitedge.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np


class Reader:
    """Batches of calibration images (B, H, W, 3), as ONNX Runtime's quantizers read them."""

    def __init__(self, name, images):
        self._name, self._images = name, images
        self.rewind()

    def get_next(self):
        return next(self._feeds, None)

    def rewind(self):
        self._feeds = ({self._name: image} for image in self._images)


def optimum(fp32, images, out):
    """optimum-onnx: its static configuration for this CPU, min-max calibration."""
    import cpuinfo
    from datasets import Dataset
    from optimum.onnxruntime import ORTQuantizer
    from optimum.onnxruntime.configuration import AutoCalibrationConfig, AutoQuantizationConfig

    vnni = "avx512_vnni" in cpuinfo.get_cpu_info()["flags"]
    make = AutoQuantizationConfig.avx512_vnni if vnni else AutoQuantizationConfig.avx2
    config = make(is_static=True)
    name = input_name(fp32)
    data = Dataset.from_dict({name: list(np.concatenate(images))}).with_format("numpy")
    quantizer = ORTQuantizer(fp32)
    ranges = quantizer.fit(
        data,
        AutoCalibrationConfig.minmax(data),
        onnx_augmented_model_name=str(out / "augmented.onnx"),
        operators_to_quantize=config.operators_to_quantize,
        batch_size=images.shape[1],
    )
    made = quantizer.quantize(config, out, calibration_tensors_range=ranges)
    (Path(made) / "model_quantized.onnx").rename(out / "model.onnx")
    (out / "augmented.onnx").unlink()


def neural_compressor(fp32, images, out):
    """onnx-neural-compressor: its defaults, but QDQ: ONNX Runtime rejects its QOperator heads."""
    from onnx_neural_compressor.quantization import QuantFormat, config, quantize

    reader = Reader(input_name(fp32), images)
    settings = config.StaticQuantConfig(
        reader, quant_format=QuantFormat.QDQ, calibration_sampling_size=len(images)
    )
    quantize(str(fp32), str(out / "model.onnx"), settings)


def modelopt(fp32, images, out):
    """NVIDIA ModelOpt's ONNX PTQ with its defaults, but float32 and on the CPU."""
    from modelopt.onnx.quantization import quantize

    quantize(
        str(fp32),
        quantize_mode="int8",
        calibration_data={input_name(fp32): np.concatenate(images)},
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=str(out / "model.onnx"),
    )


def input_name(model):
    """Of the graph's one input."""
    import onnx

    return str(onnx.load(model, load_external_data=False).graph.input[0].name)


if __name__ == "__main__":
    peer, fp32, images, out = sys.argv[1:]
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    globals()[peer](Path(fp32), np.load(images)["images"], folder)

"""Post-training quantization in one call, for tests and benchmarks that need no bundle."""

from vitedge.core.progress import SILENT
from vitedge.quant.calibrate import calibrate
from vitedge.quant.qdq import quantize
from vitedge.quant.spare import spare_outputs


def ptq(fp32, batches, recipe, target):
    """The QDQ model of the ONNX file `fp32`, calibrated on `batches`."""
    calibrated, _ = calibrate(fp32, iter(batches), recipe, target, SILENT)
    return quantize(spare_outputs(calibrated), SILENT, {})

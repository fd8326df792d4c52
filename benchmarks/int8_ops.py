"""How much of an artifact a runtime runs in INT8: what was quantized on paper may run in float."""

from __future__ import annotations

import tempfile

import onnx
import onnxruntime as ort
import openvino as ov

from vitedge.graph.structure import INTEGER_PRODUCTS

OPENVINO_MACS = {
    *("FullyConnected", "MatMul", "Convolution", "GroupConvolution"),
    *("FullyConnectedQuantized", "FullyConnectedQuantizedLegacy"),  # a profile's names
    *("ScaledDotProductAttention", "ScaledDotProductAttentionWithKVCache"),
}
ORT_INT8_MACS = {
    *INTEGER_PRODUCTS,
    *("MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QGemm", "QAttention"),
}
ORT_MACS = {
    *("MatMul", "FusedMatMul", "Gemm", "FusedGemm", "Conv", "FusedConv"),
    *("Attention", "MultiHeadAttention"),
}


def int8_ops(model, like):
    """Operators with multiply-accumulates the runtime runs in INT8, and all of them.

    Counted in the graph that the runtime executes, after its own fusions; OpenVINO's attention in
    one fused kernel is not counted at all.
    """
    if like.runtime == "openvino":
        core = ov.Core()
        compiled = core.compile_model(core.read_model(model), "CPU", dict(like.options))
        precisions = [
            op.rt_info["runtimePrecision"].astype(str)
            for op in compiled.get_runtime_model().get_ops()
            if op.rt_info["layerType"].astype(str) in OPENVINO_MACS
        ]
        return sum(p in ("i8", "u8") for p in precisions), len(precisions)
    with tempfile.TemporaryDirectory(prefix="vitedge-bench-") as folder:
        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.optimized_model_filepath = f"{folder}/optimized.onnx"
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        graph = onnx.load(options.optimized_model_filepath, load_external_data=False).graph
    ops = [node.op_type for node in graph.node]
    fast = sum(op in ORT_INT8_MACS for op in ops)
    return fast, fast + sum(op in ORT_MACS for op in ops)

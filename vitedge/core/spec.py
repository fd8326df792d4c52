"""The settings a user can write: targets, calibration recipes, preprocessing.

Frozen and strict: an unknown key or a value of the wrong type is an error that names file and key.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

import msgspec

Positive = Annotated[int, msgspec.Meta(ge=1)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""Becomes part of a folder's name."""
SSH_ADDRESS = (
    r"ssh://(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.+-]*)@)?"
    r"(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?\])"
    r"(?::(?P<port>[0-9]{1,5}))?/?"
)
SshAddress = Annotated[str, msgspec.Meta(pattern=rf"^(?:{SSH_ADDRESS})?$")]
ComputeCapability = Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]?\.[0-9]$")]
Level = Annotated[float, msgspec.Meta(ge=0, le=1)]
Spread = Annotated[float, msgspec.Meta(gt=0, le=1)]
Share = Annotated[float, msgspec.Meta(ge=0)]
Byte = Annotated[int, msgspec.Meta(ge=0, le=255)]
Rate = Annotated[float, msgspec.Meta(gt=0)]
Precision = Literal["fp32", "fp16", "bf16", "fp8", "int8"]
"""Most exact first."""
NumberFormat = Literal["int8", "fp8"]
"""What quantized products read: integers, or floats of 8 bits (E4M3)."""
QUANTIZED: frozenset[Precision] = frozenset(get_args(NumberFormat))
"""Those that are calibrated."""
Task = Literal["classification", "segmentation", "detection", "dense", "features"]
"""What a model's main output is: logits (B, classes), logits (B, classes, h, w), logits
(B, queries, classes) with boxes (B, queries, 4) as the output after it, maps of values
(B, C, h, w) or (B, h, w), or anything (B, …) else."""
WITH_CLASSES: frozenset[Task] = frozenset(("classification", "segmentation", "detection"))
"""Those that give a score of each class, and have labels; what others give is compared with
FP32's alone."""
ONE_CLASS: frozenset[Task] = frozenset(("classification", "segmentation"))
"""Those that choose one class of an image or of a pixel: axis 1 of their logits is the classes."""
MEANING: dict[Task, str] = {
    "classification": "logits",
    "segmentation": "logits",
    "detection": "logits",
    "dense": "maps",
    "features": "features",
}
"""What a main output of a task is, in a word."""
Estimator = Literal["minmax", "percentile", "mse", "entropy"]
Engine = Literal["vitedge", "nncf"]
"""Who quantizes."""
Floats = Literal["fp32", "fp16"]
WeightEstimator = Literal["minmax", "mse"]
WeightBits = Literal[4, 8]
INT4_OPSET = 21
"""Where ONNX has 4-bit integers; before, they are stored in 8 bits."""
Equalize = Annotated[float, msgspec.Meta(ge=0, le=1)] | Literal["off"]
Batch = Positive | Literal["dynamic"]
Exif = Literal["apply", "ignore"]
"""Of a photograph's orientation: turn it as its camera was held, or take it as it is stored."""


_SAMPLED = ("bilinear", "bicubic", "nearest")


class Spec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of every strict, immutable setting."""


class Preprocess(Spec, frozen=True, kw_only=True):
    """How an image file becomes the model's input.

    The host decodes, resizes, crops and pads to `height` × `width` uint8 RGB; the rest
    (scale to 0-1, normalise, channel order, NHWC to NCHW) is part of the exported graph.
    """

    height: Positive
    """Input height, pixels."""
    width: Positive
    """Input width, pixels."""
    exif: Exif = "apply"
    """What an image file says of its orientation: `ignore` is what timm and torchvision do."""
    crop_share: Level = 0.0
    """Side of the square cut from the centre before resizing, of the shorter side; 0: the whole."""
    resize: Literal["exact", "shorter_side", "inside", "shorter_then_inside", "box"] = (
        "shorter_side"
    )
    """All but `exact` keep the aspect ratio. `shorter_side` may be cropped, `inside` is as large as
    fits; `shorter_then_inside` is both in turn (Donut). `box`: the image is a person, with a
    quarter of its size around it (ViTPose)."""
    resize_px: Count = 0
    """Side after resizing, pixels: the shorter one, or both of what it must be or fit into. 0 means
    the input's own size, without a margin."""
    resize_limit_px: Count = 0
    """Longest side with `shorter_side`, pixels; 0: any."""
    resize_rounding: Literal["down", "nearest", "up"] = "down"
    """Of the other side, where the aspect ratio is kept."""
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"] = (
        "bicubic"
    )
    sampling: Literal["filter", "points", "corners", "blur"] = "filter"
    """`filter`: Pillow's, which takes in more pixels the more an image shrinks. `points`: only the
    nearest ones; `corners`: those, from corner to corner; `blur`: those of a blurred image."""
    pad: Literal["none", "end", "center", "square", "mirror"] = "none"
    """What becomes of images smaller than the input: the margin goes to the right and below, or
    around. `square` is filled up to the right and below, and `mirror` mirrored around, before
    resizing."""
    pad_color: tuple[Byte, Byte, Byte] = (0, 0, 0)
    """RGB of that margin, 0-255."""
    crop_rounding: Literal["even", "down"] = "even"
    """Left and top get half of the margin cropped off, rounded to `even` (torchvision, timm) or
    `down` (Hugging Face)."""
    mean: tuple[Level, Level, Level] = (0.5, 0.5, 0.5)
    """Per RGB channel, on the 0-1 scale."""
    std: tuple[Spread, Spread, Spread] = (0.5, 0.5, 0.5)
    """Per RGB channel, on the 0-1 scale."""
    channels: Literal["RGB", "BGR"] = "RGB"
    """Order in which the model, not the artifact, takes the channels."""

    def __post_init__(self) -> None:
        if self.sampling != "filter" and self.interpolation not in _SAMPLED:
            raise ValueError(
                f"`sampling` {self.sampling} has no `interpolation` {self.interpolation}; "
                f"set it to {' or '.join(_SAMPLED)}"
            )
        inside = self.pad in ("end", "center") or self.resize == "box"
        if not inside and 0 < self.resize_px < max(self.height, self.width):
            raise ValueError(
                f"`resize_px` is {self.resize_px}, too small to crop {self.height}×{self.width}; "
                f"set it to 0 or to at least {max(self.height, self.width)}"
            )
        if self.resize in ("inside", "shorter_then_inside") and not inside:
            raise ValueError(f"`resize` {self.resize} leaves a margin; set `pad`")


class Detection(Spec, frozen=True, kw_only=True):
    """How a detector's outputs are read: logits (B, queries, classes), and boxes (B, queries, 4)
    relative to the sides of its input."""

    scores: Literal["softmax", "sigmoid"]
    """`softmax`: over the classes and, as the last one, no object; a query has its best class.
    `sigmoid`: of each class by itself; a query may have several."""
    boxes: Literal["center", "corners"] = "center"
    """`center`: x and y of the centre, width and height. `corners`: left, top, right, bottom."""
    most: Count = 0
    """Detections of an image that `sigmoid` keeps, the best first; 0: as many as queries."""

    @property
    def no_object(self) -> int:
        """Columns of its logits that are no class, 0 or 1."""
        return int(self.scores == "softmax")


class Quantization(Spec, frozen=True, kw_only=True):
    """What a target's kernels take: the dialect of the QDQ graph."""

    activations: Literal["int8", "uint8", "mixed"]
    """Storage of activations, symmetric around zero: int8, uint8 with zero point 128, or `mixed`:
    uint8 for what a convolution reads, int8 for the rest. Where uint8 is allowed, a tensor that is
    never negative (attention probabilities) has zero point 0 and the whole range."""
    zero_points: tuple[Literal["MatMul", "Gemm", "Conv"], ...] = ()
    """Operators whose kernels take uint8 activations with any zero point, so that what reaches far
    above zero and little below (SiLU, GELU) has all integers for what it holds."""
    rest_products: bool = False
    """Whether a Linear whose smallest tokens one scale ruins may read its input in two parts, a
    coarse one and what that leaves: twice its products, all in INT8."""
    weights: Literal["full", "pair_safe"]
    """`full` uses -127..127. `pair_safe` also bounds the sum of two neighbouring weights, so that
    16-bit accumulation (x86 without VNNI) cannot saturate."""
    attention: tuple[Literal["qk", "pv"], ...]
    """Which attention products run in INT8: Q·Kᵀ, P·V, both or none."""
    pv_within_db: Share = 0.0
    """What P·V in INT8 may cost the model's output on calibration images, dB: beyond, it stays
    float; 0: it costs what it costs."""
    attention_head_sizes: tuple[Positive, ...] = ()
    """Head sizes for which it has fused INT8 attention; empty: any."""
    attention_max_tokens: Count = 0
    """Longest sequence for which it has; 0: any."""
    operators: tuple[Literal["MatMul", "Gemm", "Conv"], ...]
    """Which operators with constant weights the runtime has INT8 kernels for."""
    quantized_outputs: tuple[Literal["Conv"], ...] = ()
    """Those of `operators` whose kernels put out INT8, too, and take a bias in INT32."""
    pays_from: Share = 0.0
    """Of those, the MACs for each value read and written from which INT8 is faster; a layer with
    fewer stays float."""
    pays_from_macs: Count = 0
    """Of those, likewise the MACs of an image: what is around a small layer costs more."""
    stored: tuple[Literal["Gemm", "Conv", "ConvTranspose"], ...] = ()
    """Whose constant weights are stored in INT8 where their products are float: the runtime makes
    them float once, when it loads the graph."""
    floats: Floats = "fp32"
    """What the rest is computed in, and scales are stored in."""
    number_format: NumberFormat = "int8"
    """What products read. No file sets it: an export does, by its precision."""
    fused_attention: bool = False
    """Whether it fuses INT8 attention in one form alone: a Linear each for Q, K and V, the scale on
    Q."""


class Compile(Spec, frozen=True, kw_only=True):
    """How a compiled runtime makes its engine: TensorRT's builder settings."""

    max_batch: Positive = 32
    """Largest batch of the optimisation profile, where the batch is dynamic."""
    opt_batch: Positive = 8
    """The batch it is tuned for."""
    workspace_mib: Count = 0
    """Limit of the scratch memory that a kernel may use, MiB; 0: all of the device's."""
    version_compatible: bool = False
    """Whether later versions of the runtime can load the engine, too."""
    hardware_compatible: bool = False
    """Whether other GPUs of the generation, and later ones, can run it, too."""
    weights: Literal["inside", "refittable", "stripped"] = "inside"
    """`refittable` weights can be replaced in the engine; `stripped` ones are added on the device
    from the ONNX file beside it."""


class Target(Spec, frozen=True, kw_only=True):
    """One device or runtime that artifacts are built for: a file of `targets/`."""

    name: Name
    description: str
    runtime: Name
    """As it is registered (`vitedge.core.runtime`)."""
    versions: tuple[str, str] = ("", "")
    """The runtime's first version that takes this, and the first that does not; empty: any."""
    machines: tuple[str, ...]
    """Machine architectures this target runs on, as `platform.machine()` names them."""
    isa: tuple[str, ...] = ()
    """CPU features of which the machine must have at least one; empty means none is needed."""
    compute_capabilities: tuple[ComputeCapability, ...] = ()
    """GPUs it is built for, as NVIDIA numbers them, e.g. `8.7`; empty: whatever GPU is there."""
    precisions: tuple[Precision, ...]
    fp16_kernels: bool = False
    """Whether FP16 is computed as such, and not only stored: INT8 is then compared with it, too."""
    opset: int
    """ONNX opset of the exported graph."""
    opset_min: int = 17
    opset_max: int = 20
    batch: Batch = 1
    threads: Count = 0
    """Inference threads; 0 means every core this process may use."""
    quantization: Quantization
    contrib: bool = False
    """Whether the runtime gets the graph in operators of its own, too, where these are faster."""
    compile: Compile = Compile()
    """Of the runtimes that compile an engine."""
    options: dict[str, str] = {}
    """Session or compile options, of those that the runtime lets a target set."""
    bf16_isa: tuple[str, ...] = ()
    """CPU features of which one multiplies in BF16; a machine without runs its artifacts in FP32,
    and is not what they are built for."""
    bf16_options: dict[str, str] = {}
    """Options, over the others, with which the runtime computes an FP32 graph's floats in BF16."""
    device: SshAddress = ""
    """Where one is: `ssh://[user@]host[:port]`, for `vitedge bench` there; empty: not said.
    An artifact does not carry it along."""

    @property
    def batch_size(self) -> int:
        """Images in one run of its graph; 1 where any number is taken."""
        return 1 if self.batch == "dynamic" else self.batch


class Calibration(Spec, frozen=True, kw_only=True):
    """How quantization ranges are found: a file of `calibration/`."""

    name: Name
    description: str
    engine: Engine = "vitedge"
    """Who quantizes: `nncf` is NNCF's own PTQ, which has its own ways where a field says "nncf"."""
    num_samples: Positive
    """Calibration images drawn from the data given."""
    selection: Literal["first", "random", "stratified", "diverse"] = "random"
    """Which ones: the first of the set, any, equal numbers of each class, or those that look least
    alike (`vitedge.data.calibration`)."""
    seed: Count = 0
    """Seed of that draw; `first` draws nothing."""
    activations: Estimator | Literal["auto", "nncf"]
    """Range of an activation: the largest magnitude seen, the 99.99th percentile, the clip of least
    squared error or of least KL divergence; `auto` takes the one with the best output."""
    weights: WeightEstimator | Literal["nncf"]
    """Range of a weight's output channel: the largest magnitude, or the clip of least squared
    error."""
    weight_bits: WeightBits = 8
    """Bits of a weight; 4 are stored in 8 below opset 21, and make nothing faster there."""
    rounding: Literal["nearest", "adaptive", "auto"] = "nearest"
    """`adaptive` rounds each weight so that the errors cancel in what its layer gives on the
    calibration images (GPTQ, Frantar 2023): another pass or a few over them, and no labels. `auto`
    does so, and corrects biases, where the nearest leave less than 25 dB of the model's output, but
    for detectors."""
    rounding_budget_s: Count = 0
    """Seconds after which no further pass is begun, and what is left rounded to the nearest; 0: as
    many as it takes."""
    bias_correction: bool = False
    """Add to each layer's bias what quantization takes from its mean output (Nagel 2019)."""
    equalize: Equalize | Literal["auto", "nncf"] = 0.5
    """Rescale channels first, without changing what the model computes, so that outliers do not
    take the range of the others: SmoothQuant's α, from flat weights (0) to flat activations (1);
    `auto` takes the one with the best output."""

    def __post_init__(self) -> None:
        for name in ("activations", "weights", "equalize"):
            value = getattr(self, name)
            if self.engine == "nncf" and value != "nncf":
                raise ValueError(
                    f"`{name}` {value} does not apply with `engine` nncf, which has its own way; "
                    f'write `{name} = "nncf"`'
                )
            if self.engine != "nncf" and value == "nncf":
                raise ValueError(f'`{name}` nncf is no way of ours; write `engine = "nncf"`, too')
        if self.engine == "vitedge":
            return
        ours = {
            "weight_bits": self.weight_bits != 8,
            "rounding": self.rounding != "nearest",
            "rounding_budget_s": self.rounding_budget_s != 0,
        }
        for name, is_set in ours.items():
            if is_set:
                raise ValueError(
                    f"`{name}` {getattr(self, name)} does not apply with `engine` nncf; "
                    "take it out, or quantize with `engine` vitedge"
                )


class Training(Spec, frozen=True, kw_only=True):
    """How `vitedge qat` trains: the file that its `training` takes."""

    epochs: Positive = 2
    batch_size: Positive = 32
    """Images of one step, over all processes."""
    accumulate: Positive = 1
    """Parts in which a process takes its share of a step, one after the other."""
    learning_rate: Rate = 1e-5
    """Of the weights, at its highest (AdamW)."""
    scale_learning_rate: Rate = 1e-3
    """Of the logarithms of the scales."""
    scales: Literal["learned", "frozen"] = "learned"
    """Whether quantization steps are trained (LSQ) or stay those of PTQ."""
    weight_decay: Share = 0.0
    warmup: Spread = 0.1
    """Share of all steps in which the rate rises; it falls along a cosine to zero after."""
    clip_norm: Rate = 1.0
    """Largest norm of all gradients together."""
    ema: Level = 0.0
    """Decay of the moving average of the weights that is kept instead; 0: none."""
    floats: Literal["auto", "fp32", "bf16"] = "auto"
    """What is computed in; `auto`: bf16 where the hardware multiplies in it."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, a third more time."""
    distillation: Share = 1.0
    """Weight of the loss against the FP32 model's outputs."""
    temperature: Rate = 1.0
    """That its logits are divided by."""
    features: Share = 0.0
    """Weight of the squared error of the token features before the head, relative to their own."""
    labels: Share = 0.0
    """Weight of the cross-entropy with the images' labels; 0 takes images without."""
    mixup: Share = 0.0
    """α of the Beta distribution that mixes two images; 0: none."""
    cutmix: Share = 0.0
    """α of that which cuts one into another; 0: none."""
    flip: bool = False
    """Mirror half of the images."""
    held_out: Spread = 0.1
    """Share of the training images kept apart, to choose the best checkpoint on."""
    checkpoint_steps: Positive = 100
    """Steps between checkpoints; there is one after each epoch, too."""
    seed: Count = 0

    def __post_init__(self) -> None:
        if not self.distillation + self.features + self.labels:
            raise ValueError("no loss: set `distillation`, `features` or `labels` above 0")

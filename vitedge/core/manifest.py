"""manifest.json: what an artifact is, where it came from, and the hash of every file in it."""

from __future__ import annotations

from typing import Literal

from msgspec import field

from vitedge.core.spec import (
    Calibration,
    Detection,
    Equalize,
    Estimator,
    Precision,
    Preprocess,
    Spec,
    Target,
    Task,
    Training,
)

SCHEMA = "vitedge.artifact/1"
INT8_SCHEME = "symmetric INT8 QDQ: activations per tensor, weights per output channel"
FP8_SCHEME = "symmetric FP8 (E4M3) QDQ: activations per tensor, weights per output channel"


class Model(Spec, frozen=True, kw_only=True):
    """Which model the artifact was made from."""

    name: str
    source: str
    task: Task
    num_classes: int
    """0 of what has none."""
    weights_sha256: str
    detection: Detection | None = None
    """How the outputs of a detector are read; None of any other."""


class Tensor(Spec, frozen=True, kw_only=True, omit_defaults=True):
    """One input or output."""

    name: str
    shape: tuple[int | Literal["batch"], ...]
    dtype: str
    layout: str
    ordered_by: str = ""
    """The node whose scores choose the order of its axis 1; outputs of one share their order.
    After `rows and columns by`: of axis 2, too. Empty where a place has a meaning of its own."""


class Preprocessing(Spec, frozen=True, kw_only=True):
    """Who does what to an image."""

    host: Preprocess
    graph: tuple[str, ...]


class Figures(Spec, frozen=True, kw_only=True):
    """What one operator loses, measured on a few images when it was quantized."""

    activation_scales: tuple[float, ...]
    """Of each activation it reads; empty where it stays in float."""
    weight_scales: tuple[float, float] | None
    """Smallest and largest of its output channels; None in float and without weights."""
    clipped_share: float | None
    """Share of its activations further from their INT8 value than rounding explains, 0-1."""
    sqnr_db: float | None
    """Of its output, from the rounding of its own inputs alone; None in float, or if exact."""
    accumulated_sqnr_db: float | None
    """Of its output in the INT8 graph against FP32; None if exact."""
    macs: int
    """Multiply-accumulates of one image."""
    token_sqnr_db: float | None = None
    """As `sqnr_db`, of the worst token in a run of an output (n, N, C); None of any other."""


class Layer(Spec, frozen=True, kw_only=True):
    """What was decided for one operator, and why."""

    node: str
    op: str
    role: str
    quantized: bool
    why: str
    stored: bool = False
    """Whether its weights are stored in INT8, and its products float."""
    figures: Figures | None = None
    """None until it is measured: in no artifact that was exported."""


Consequence = Literal["rejected", "INT8 lost", "other numbers", "slower"]


class Finding(Spec, frozen=True, kw_only=True):
    """Something in a graph that its target does not take well."""

    rule: str
    node: str
    """Empty where it is the whole graph."""
    consequence: Consequence
    what: str
    fix: str


class CalibrationSet(Spec, frozen=True, kw_only=True):
    """Exactly which images the ranges were measured on."""

    recipe: Calibration
    source: str
    images: int
    digest: str
    """SHA-256 over the images' digests in order."""
    image_digests: tuple[str, ...]
    """First 16 hex digits of the SHA-256 of each image's input pixels."""
    skipped: dict[str, int]
    """Images left out, by reason."""


class Pair(Spec, frozen=True, kw_only=True):
    """Channels that were rescaled before quantization, and the nodes where that cancels."""

    sources: tuple[str, ...]
    users: tuple[str, ...]


class Equalization(Spec, frozen=True, kw_only=True):
    """What was rescaled, and the largest relative error that this left in FP32."""

    pairs: tuple[Pair, ...]
    max_rel_error: float


class Tried(Spec, frozen=True, kw_only=True):
    """One way to calibrate, and the SQNR of its output on calibration images."""

    equalize: Equalize
    activations: Estimator
    sqnr_db: float


class Settled(Spec, frozen=True, kw_only=True):
    """What the recipe's `auto` came to."""

    equalize: Equalize
    activations: Estimator
    tried: tuple[Tried, ...]
    """Best first; empty where the recipe left nothing open."""


class NearestLayer(Spec, frozen=True, kw_only=True):
    """A layer whose weight is rounded to the nearest, where others go by what they read."""

    node: str
    why: str


class Rounding(Spec, frozen=True, kw_only=True):
    """Weights rounded, and biases corrected, by what layers read on calibration images."""

    layers: int
    """With weights in INT8."""
    adaptive: int
    """Weights rounded so; 0 where that left less of the model's output."""
    biases: int
    """Corrected; 0 likewise."""
    nearest: tuple[NearestLayer, ...]
    nearest_sqnr_db: float
    """Of the main output on a few calibration images, every weight rounded to the nearest."""
    sqnr_db: float
    """As they are."""


class KeptLayer(Spec, frozen=True, kw_only=True):
    """A layer in float, and its noise at the model's output if it alone were in INT8."""

    node: str
    noise_db: float
    """10·log10 of noise power over signal power, on a few calibration images."""


class Spared(Spec, frozen=True, kw_only=True):
    """Layers in float because INT8 left too little of the model's output on calibration images."""

    least_db: float
    """What it must leave."""
    sqnr_db: float
    """What is left with them in float."""
    full_sqnr_db: float
    """What is left without."""
    layers: int
    """With an INT8 form."""
    kept: tuple[KeptLayer, ...]
    """Most harmful first."""


class ControlCost(Spec, frozen=True, kw_only=True):
    """What layers in float cost on the machine that exported, timed in turn; intervals of 95%."""

    p50_ms: float
    full_int8_p50_ms: float
    fp32_p50_ms: float
    slowdown: float
    """Latency over that with every layer in INT8."""
    slowdown_ci: tuple[float, float]
    speedup: float
    """Latency of FP32 over it."""
    speedup_ci: tuple[float, float]


class Bounds(Spec, frozen=True, kw_only=True, omit_defaults=True):
    """What INT8 may lose against FP32; None: no bound."""

    max_drop_pp: float | None = None
    """Accuracy, percentage points."""
    min_sqnr_db: float | None = None
    """Of the worst output."""
    min_token_sqnr_db: float | None = None
    """Of the worst token or pixel of any output that has several."""


class Losses(Spec, frozen=True, kw_only=True):
    """What was measured of an artifact against FP32, on the images that its report names."""

    drop_pp: float | None
    """Percentage points; None without labels."""
    sqnr_db: float | None
    """Of the worst output; None if all equal FP32's, -1000 where one is not finite."""
    token_sqnr_db: float | None
    """Of the worst token or pixel likewise; None, too, where no output has several."""


class Control(Spec, frozen=True, kw_only=True):
    """Layers that were kept in float because INT8 lost too much without."""

    bounds: Bounds
    """All of them are met."""
    full: Losses
    """With every layer in INT8."""
    reached: Losses
    """With layers in float."""
    layers: int
    """In INT8 otherwise."""
    kept: tuple[KeptLayer, ...]
    """Most harmful first."""
    tried: tuple[tuple[int, Losses], ...]
    """Layers in float, and what was measured then."""
    cost: ControlCost | None
    """None where it does not run on the machine that exported."""


class HeldOut(Spec, frozen=True, kw_only=True):
    """What was measured on training images that were kept apart."""

    step: int
    """Steps done; 0 is what PTQ gave."""
    loss: float
    accuracy: float | None
    """Share of them classified as labelled or, unlabelled, as FP32 does; None of features."""
    sqnr_db: float | None = None
    """As in `Losses`; None, too, where no level ends training."""
    token_sqnr_db: float | None = None
    """Likewise."""


class Trained(Spec, frozen=True, kw_only=True):
    """How the weights and scales were trained on from what PTQ gave."""

    settings: Training
    source: str
    images: int
    """Trained on."""
    held_out: int
    """Kept apart, to choose the best step."""
    digest: str
    """SHA-256 over the digests of all of them in order."""
    skipped: dict[str, int]
    """Images left out, by reason."""
    missing_classes: tuple[str, ...]
    """The model's classes that none of them shows; empty where they are unlabelled."""
    processes: int
    steps: int
    best_step: int
    """Whose weights these are."""
    bounds: Bounds | None = None
    """Training ended where these were met; None: after all of its steps."""
    looks: tuple[HeldOut, ...]
    curve: tuple[tuple[int, float], ...]
    """(step, loss): means over stretches of a longer run."""
    parity: float | None = None
    """The artifact's output on the golden images against what was trained, relative (‖Δ‖/‖y‖);
    None where it does not run here."""


class QuantizationRecord(Spec, frozen=True, kw_only=True):
    """How the graph was quantized."""

    scheme: str = INT8_SCHEME
    layers: tuple[Layer, ...]
    calibration: CalibrationSet
    settled: Settled | None
    """None where another engine than ours decided."""
    equalization: Equalization | None
    """None likewise."""
    lint: tuple[Finding, ...] = ()
    """What the target does not take well in this graph."""
    control: Control | None = None
    """None where every layer in INT8 met all bounds, or nothing asked."""
    training: Trained | None = None
    """None after PTQ alone."""
    rounding: Rounding | None = None
    """None where every weight is rounded to the nearest."""
    spared: Spared | None = None
    """None where INT8 leaves enough, or no number of layers would do."""


Cause = Literal["no narrow form", "underflow", "overflow", "drift"]


class Kept(Spec, frozen=True, kw_only=True):
    """An operator that stays in float32, and why."""

    node: str
    op: str
    why: str
    cause: Cause = "overflow"


class Half(Spec, frozen=True, kw_only=True):
    """How the graph became float16, and what was done against overflow."""

    kept: tuple[Kept, ...]
    """What stays in float32."""
    layer_norm: str
    """How LayerNorm is computed."""
    largest: float
    """max|x| over all activations but pixels; float16 ends at 65,504."""
    largest_node: str
    """The operator that gave it."""
    limit: float
    """The largest |x| left in float16."""
    sqnr_db: float
    """Of the output against FP32's, every float16 result rounded."""
    source: str
    """The images it was measured on; `golden` for those of the bundle."""
    images: int


class Bf16(Spec, frozen=True, kw_only=True):
    """What computing floats in BF16 costs, measured with results rounded so, and what followed."""

    computed: bool
    """Whether they are, on a CPU that has it."""
    why: str = ""
    """Why not; empty where they are."""
    kept: tuple[Kept, ...] = ()
    """What stays in FP32 of a graph that has its types inside."""
    output: str
    """The output that it costs most."""
    sqnr_db: float
    """Of that one against FP32's."""
    fp32_rest_db: float | None
    """Likewise with floats in FP32; None where nothing is in INT8."""
    source: str
    """The images it was measured on; `golden` for those of the bundle."""
    images: int


class Compiled(Spec, frozen=True, kw_only=True):
    """What a compiler made of the graph, as its build log says."""

    compiler: str
    """Package and version."""
    compute_capability: str
    """The GPU it compiled for."""
    planned: int
    """Products that are INT8 or FP8 in the graph, attention's included."""
    int8: int
    """Of those, how many it runs in INT8."""
    fp8: int = 0
    """And in FP8."""
    attention: int
    """Attentions (Q·Kᵀ, softmax, P·V) in the graph."""
    fused: int
    """Of those, how many it runs as one kernel."""
    lost: dict[str, str]
    """The planned products that run in float, by node, and what they became."""


class Build(Spec, frozen=True, kw_only=True):
    """Whether the engine is there, and what the compiler made of the graph."""

    state: Literal["done", "on the device"]
    why: str = ""
    """What was missing here; empty where it is done."""
    compiled: Compiled | None = None
    """None where no compiler was at hand."""


class Reference(Spec, frozen=True, kw_only=True):
    """The FP32 bundle this artifact is compared with; it lies beside it."""

    bundle: str
    files: dict[str, str]
    """Its model files and their SHA-256."""


class ExportParity(Spec, frozen=True, kw_only=True):
    """The exported FP32 graph against its source, on the same images."""

    max_abs_error: float
    max_rel_error: float


class GoldenParity(Spec, frozen=True, kw_only=True):
    """The artifact's main output on the golden images against FP32's, where it was built."""

    sqnr_db: float | None
    """None if equal."""
    agreement: float | None
    """Share of images (of pixels) on which both choose the same class; None for features."""
    n: int
    further: dict[str, float | None] = field(default_factory=dict)
    """SQNR of the other outputs by name; None if equal."""


class Manifest(Spec, frozen=True, kw_only=True):
    """Everything that ties an artifact to where it came from."""

    schema: str
    name: str
    precision: Precision
    model: Model
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    """The main one first: task, accuracy and limits are about it."""
    preprocessing: Preprocessing
    target: Target
    quantization: QuantizationRecord | None
    parity: ExportParity
    accuracy: Literal["measurable", "not measurable"]
    accuracy_note: str
    """Why accuracy is not measurable; empty where it is."""
    reference: Reference | None
    tools: dict[str, str]
    files: dict[str, str]
    """SHA-256 of every file but the manifest, and what measuring makes: no others may lie there."""
    sizes: dict[str, int]
    """Bytes of each of `files`."""
    half: Half | None = None
    """None unless floats are computed in FP16."""
    bf16: Bf16 | None = None
    """None where its target has no BF16, and of FP32 and FP16."""
    build: Build | None = None
    """None where the runtime takes the model as it is."""
    golden: GoldenParity | None = None
    """None where the artifact does not run where it was built."""

    @property
    def computes_bf16(self) -> bool:
        """Whether floats are computed in BF16, on a machine that has it."""
        return self.bf16 is not None and self.bf16.computed

    @property
    def orders(self) -> tuple[str, ...]:
        """What chooses the order of each output, as `Tensor.ordered_by`."""
        return tuple(output.ordered_by for output in self.outputs)

"""The typed truth behind the YAML: every key of `pretrain`, `evaluate` and `extract`."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

from unlabeled.config.ranges import at_least, positive
from unlabeled.registry import Component

Problems = Iterator[tuple[str, str]]
UNCATCHABLE = ("SIGKILL", "SIGSTOP")
Device = Literal["auto", "cpu", "cuda"]
Sharding = Literal["none", "fsdp"]
ActivationCheckpointing = Literal["none", "stage"]
ClipScope = Literal["model", "tensor"]


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where a run lives."""

    dir: str
    """The run directory; made if missing, continued if it holds a checkpoint of the same config."""


@dataclass(frozen=True, kw_only=True)
class LoaderConfig:
    """How batches are made; nothing but `decode_at_least` changes what is in them."""

    kind: Literal["auto", "threads", "processes"]
    """auto: threads where the transform releases the GIL, processes where it is Python."""
    workers: int | None
    """Threads or processes per rank that decode and augment; 0: the training thread does. null:
    the cores of the rank (half of them where it trains on the CPU)."""
    prefetch_batches: int
    """Micro-batches of the rank that are prepared ahead."""
    max_broken_share: float
    """The run stops when more than this share of the data set could not be decoded."""
    cache_gb: float
    """Memory per rank for decoded training images, in 10^9 bytes; 0: none. Worker processes fill
    a cache each."""
    decode_at_least: int | None
    """For training, decode JPEGs of which both sides exceed 1000 px at 1/2, 1/4 or 1/8 of their
    size, as long as the shorter side keeps so many pixels: about twice as fast, not bit-equal.
    null: whole images."""

    def problems(self) -> Problems:
        """Ranges."""
        yield from positive(self, "prefetch_batches", "decode_at_least")
        yield from at_least(self, 0, "workers")
        if not 0 <= self.max_broken_share < 1:
            yield "max_broken_share", f"must be in [0, 1), got {self.max_broken_share}"
        if self.cache_gb < 0:
            yield "cache_gb", f"must be 0 (no cache) or more, got {self.cache_gb}"


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """Per-channel mean and standard deviation (RGB) of pixels scaled to [0, 1]."""

    mean: tuple[float, float, float]
    """ImageNet's: 0.485, 0.456, 0.406."""
    std: tuple[float, float, float]
    """SwAV's code uses 0.228, 0.224, 0.225; torchvision, DINO and VISSL 0.229 for red."""

    def problems(self) -> Problems:
        """Ranges."""
        if min(self.std) <= 0:
            yield "std", f"must be positive, got {self.std}"


@dataclass(frozen=True, kw_only=True)
class SyncBatchNormConfig:
    """Batch normalisation over several ranks."""

    enabled: bool
    group_size: int | None
    """Ranks that share statistics (the official runs: 8); null shares over all."""


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When checkpoints are written and how many stay."""

    every_steps: int | None
    every_samples: int | None = None
    """Images between two checkpoints, rounded up to whole steps."""
    every_epochs: int | None
    """Epochs, or where those are cut into rounds, rounds between two checkpoints."""
    keep: int
    """Newest checkpoints kept on disk."""
    on_signals: list[str]
    """Signals on which the run finishes its step, on all ranks together, writes a checkpoint and
    ends with status 7; the same command continues it. (SLURM sends SIGTERM, or what it is told.)"""
    background: bool
    """Write from a copy of the state, which takes as much memory of the host, while training goes
    on; false stands still until the checkpoint is in its place."""

    def problems(self) -> Problems:
        """Ranges."""
        yield from positive(self, "every_steps", "every_samples", "every_epochs", "keep")
        known = [name for name in signal.Signals.__members__ if name not in UNCATCHABLE]
        for name in self.on_signals:
            if name not in known:
                yield "on_signals", f"no signal that can be caught: {name!r}; e.g. SIGTERM, SIGUSR2"


@dataclass(frozen=True, kw_only=True)
class ScaleConfig:
    """Sizes that methods share and that depend on how much data there is."""

    name: str
    image_size: int
    """Side of the evaluation view."""
    num_prototypes: int
    hidden_dim: int
    projection_dim: int


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """Everything that `unlabeled pretrain` reads."""

    run: RunConfig
    seed: int
    device: Device
    precision: Literal["fp32", "bf16", "fp16"]
    """Type of the forward pass; weights, losses and codes stay float32."""
    batch_size: int
    """Images per optimizer step, over all ranks and accumulated micro-batches."""
    accumulate_steps: int
    """Micro-batches per optimizer step; `method.codes_over` says what that does to SwAV's codes."""
    epochs: float | None
    samples: int | None
    """Length of the run: `epochs` or `samples`, one of the two."""
    round_samples: int | None = None
    """Images after which meters, probes and checkpoints that come once an epoch have their turn,
    rounded up to whole steps. null: an epoch, or a tenth of a run by `samples` if that is less."""
    max_steps: int | None
    """Stop after this many steps; schedules still follow the full length."""
    clip_grad_norm: float | None
    clip_grad_scope: ClipScope = "model"
    """What `clip_grad_norm` limits: the norm of the whole gradient, or that of each parameter's
    (DINO)."""
    final_weight_decay: float | None = None
    """Weight decay at the end of the run, to which that of the optimizer moves along half a cosine
    (DINO: 0.4); null: it stays."""
    sharding: Sharding
    """What the ranks divide among them: none (each holds the whole model), or fsdp (parameters,
    gradients and optimizer state; a stage of the backbone is gathered while it computes, and what
    is too large for that stays divided: DeeperCluster's classifiers)."""
    activation_checkpointing: ActivationCheckpointing
    """stage: keep of every stage of the backbone its input alone and compute the rest again in
    backward; a third more computation for a fraction of the memory."""
    compile: bool
    channels_last: bool
    threads: int | None
    """CPU threads of torch for each process; null divides the cores among the local processes."""
    sync_batch_norm: SyncBatchNormConfig
    normalization: Normalization
    scale: ScaleConfig
    dataset: Annotated[Component, "dataset"]
    sampler: Annotated[Component, "sampler"]
    transform: Annotated[Component, "transform"]
    eval_transform: Annotated[Component, "transform"]
    loader: LoaderConfig
    backbone: Annotated[Component, "backbone"]
    method: Annotated[Component, "method"]
    head: Annotated[Component, "head"]
    loss: Annotated[Component, "loss"]
    assigner: Annotated[Component, "assigner"] | None = None
    optimizer: Annotated[Component, "optimizer"]
    scheduler: Annotated[Component, "scheduler"]
    meters: dict[str, Annotated[Component, "meter"] | None]
    hooks: dict[str, Annotated[Component, "hook"] | None]
    checkpoint: CheckpointConfig
    initial_weights: str | None = None
    """Whose backbone the run begins with: a run, a checkpoint or a weights file of any layout that
    `unlabeled evaluate` reads; null: random weights. A run that is continued has its own."""
    resume: str
    """auto (continue what `run.dir` holds), never, or the path of a checkpoint or run."""
    launch: Annotated[Component, "launcher"]
    plugins: list[str]
    """Modules of your own that register components."""

    def problems(self) -> Problems:
        """Lengths, divisibility, and parts that the method does or does not take."""
        yield from positive(
            self, "batch_size", "accumulate_steps", "epochs", "samples", "round_samples",
            "max_steps", "clip_grad_norm", "threads",
        )  # fmt: skip
        if (self.epochs is None) == (self.samples is None):
            yield (
                "epochs",
                "give the length as `epochs` or as `samples`, one of the two (the other null)",
            )
        yield from at_least(self, 0, "final_weight_decay")
        if self.sharding == "fsdp" and self.compile:
            yield "compile", "not together with sharding=fsdp; set compile=false or sharding=none"
        shares = self.launch.fields.processes * self.accumulate_steps
        if self.accumulate_steps > 0 and self.batch_size % shares:
            lower = self.batch_size // shares * shares
            yield (
                "batch_size",
                (
                    f"{self.batch_size} does not divide by {self.launch.fields.processes} "
                    f"processes x {self.accumulate_steps} accumulated micro-batches; "
                    f"{lower or shares} or {lower + shares} would"
                ),
            )


@dataclass(frozen=True, kw_only=True)
class MeasuringConfig:
    """What `unlabeled evaluate`, `unlabeled suite` and `unlabeled extract` read alike."""

    weights: str
    """A run, a checkpoint, a weights file (of ours, torchvision, timm, Detectron2, SwAV, DINO, MoCo
    or VISSL), a folder of backbone.safetensors and backbone.json, torchvision:<name>, or
    `random`."""
    like: str | None = None
    """A run whose data set, view, architecture and seed count where this command names none."""
    dataset: Annotated[Component, "dataset"] | None = None
    """null: the data set the run was trained on."""
    backbone: Annotated[Component, "backbone"] | None = None
    """null: what the weights say."""
    eval_transform: Annotated[Component, "transform"] | None = None
    normalization: Normalization | None = None
    batch_size: int
    """Images per forward pass, over all ranks."""
    seed: int
    device: Device
    threads: int | None
    loader: LoaderConfig
    launch: Annotated[Component, "launcher"]
    plugins: list[str]

    def problems(self) -> Problems:
        """Ranges."""
        yield from positive(self, "batch_size", "threads")


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(MeasuringConfig):
    """Everything that `unlabeled evaluate` reads."""

    benchmark: Annotated[Component, "benchmark"]
    out: str | None
    """Where the result goes; null: results/<result>.json of the run, or only the terminal."""
    result: str | None = None
    """The name of the result in a run; what `benchmark=` chose, preset or component. null: the
    component."""

    def problems(self) -> Problems:
        """Names that are files."""
        yield from super().problems()
        if self.result is not None and self.result.strip("./") == "":
            yield "result", f"names a file, got {self.result!r}"


@dataclass(frozen=True, kw_only=True)
class ExtractConfig(MeasuringConfig):
    """Everything that `unlabeled extract` reads."""

    split: Literal["train", "test"]
    """Which images of the data set."""
    layers: list[str]
    """`output` (what the backbone returns) and modules of the backbone by their dotted names, such
    as layer3; maps are averaged over their positions, sequences over their tokens."""
    dtype: Literal["float32", "float16"]
    """Type of the numbers on disk; the network computes in float32."""
    shard_images: int
    """Images whose features share a file: what a kill loses at most per process, and the piece in
    which processes share the work."""
    index: Literal["csv", "parquet"]
    """Kind of the tables of names, labels and rows; parquet needs pyarrow."""
    out: str
    """The folder to write, or to go on with."""

    def problems(self) -> Problems:
        """Ranges."""
        yield from super().problems()
        yield from positive(self, "shard_images")
        if not self.layers or len(set(self.layers)) < len(self.layers):
            yield "layers", f"needs one or more different names, got {self.layers}"

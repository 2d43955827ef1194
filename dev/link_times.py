"""How long what the ranks say takes on a link: formulas, for the ResNet-50 recipe of the papers.

    python dev/bench_scaling.py --links      # the tables

The ranks form a ring. Each sends 2 (n - 1) / n b for an all-reduce of b bytes and (n - 1) / n b for
an all-gather of b bytes in all; a ring crosses the link of a node once, however many GPUs the node
has. Latency, which the number of calls costs, and overlap with computing are left out. Batch
normalisation is left out too: recipes keep it inside groups of 8, and MoCo has none to share.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from unlabeled.config.check import build_config
from unlabeled.config.compose import compose_config
from unlabeled.config.schema import PretrainConfig
from unlabeled.distributed.traffic import Collective

GPUS = (8, 16, 32, 64, 128, 256, 512)
GIGABITS = (100, 400)
FLOAT, INDEX = 4, 8  # bytes
MOCO_PIXELS = 224  # one view of an image is the query, one the key


@dataclass(frozen=True)
class Exchange:
    """What a method sends in a step: its formula in words, and the calls that it comes to."""

    name: str
    formula: str
    calls: list[Collective]

    def seconds(self, gpus: int, gigabits: float) -> float:
        """Time of the bytes alone on a link of so many 10^9 bits a second."""
        return sum(call.sent(gpus) for call in self.calls) * 8 / (gigabits * 1e9)


def _call(operation: str, elements: int, width: int = FLOAT) -> Collective:
    return Collective(operation, elements, elements * width, ())


def gradients(parameters: int) -> Exchange:
    """DDP's average of all gradients; the others lack SwAV's prototypes, 1 % of them."""
    calls = [_call("allreduce_", parameters)]
    return Exchange("gradients", f"all-reduce 4 x {parameters:,}", calls)


def swav(prototypes: list[int], iterations: int, assign_crops: int) -> Exchange:
    """One K-vector per Sinkhorn iteration, prototype set and assign crop."""
    calls = [_call("allreduce_", k) for k in prototypes] * iterations * assign_crops
    words = f"{assign_crops} crops x {iterations} iterations x all-reduce 4 x {sum(prototypes)}"
    return Exchange("SwAV", words, calls)


def simclr(batch: int, views: int, dim: int, gpus: int) -> Exchange:
    """The embeddings of all views, and back the gradients that all ranks have for them."""
    own = views * batch // gpus * dim
    calls = [_call("allgather_", own), _call("allreduce_", gpus * own)]
    words = f"all-gather and all-reduce 4 x {views} N D"
    return Exchange(f"SimCLR with {views} views", words, calls)


def moco_keys(batch: int, dim: int, gpus: int) -> Exchange:
    """The keys that enter every rank's copy of the queue; no gradient goes back."""
    calls = [_call("allgather_", batch // gpus * dim)]
    return Exchange("MoCo's keys for the queue", "all-gather 4 N D", calls)


def moco_shuffle(batch: int, dim: int, gpus: int) -> Exchange:
    """Shuffled batch norm: float32 images to other ranks in a drawn order, and their keys back."""
    calls = [
        _call("allgather_", batch // gpus * 3 * MOCO_PIXELS**2),
        _call("broadcast_", batch, INDEX),
        _call("allgather_", batch // gpus * dim),
    ]
    words = f"all-gather 4 N 3 x {MOCO_PIXELS}^2, broadcast 8 N, all-gather 4 N D"
    return Exchange("MoCo's shuffling for batch norm", words, calls)


def recipe() -> PretrainConfig:
    """The paper's main ResNet-50 run."""
    composed = compose_config("pretrain", ["experiment=swav/r50_800ep", "dataset.root=."])
    return build_config(PretrainConfig, composed.data, composed.problems)


def parameters_of(config: PretrainConfig) -> int:
    """Trained numbers of backbone, projection and prototypes."""
    with torch.device("meta"):
        backbone = config.backbone.build()
        head = config.head.build(feature_dim=backbone.feature_dim, num_classes=0)
    return sum(p.numel() for part in (backbone, head) for p in part.parameters())


def exchanges(config: PretrainConfig, batch: int, gpus: int) -> list[Exchange]:
    """The rows of a table."""
    assert config.assigner is not None  # the recipe is SwAV's
    head, views = config.head.fields, sum(c.count for c in config.transform.fields.crops)
    crops = len(config.method.fields.crops_for_assign)
    return [
        gradients(parameters_of(config)),
        swav(head.num_prototypes, config.assigner.fields.iterations, crops),
        simclr(batch, crops, head.output_dim, gpus),
        simclr(batch, views, head.output_dim, gpus),
        moco_keys(batch, head.output_dim, gpus),
        moco_shuffle(batch, head.output_dim, gpus),
    ]


def table(
    config: PretrainConfig, *, per_gpu: int | None = None, columns: tuple[int, ...] = GPUS
) -> str:
    """Milliseconds a step; the global batch is the recipe's, or `per_gpu` images a GPU."""
    rows: dict[str, list[str]] = {}
    for gpus in columns:
        batch = per_gpu * gpus if per_gpu else config.batch_size
        for exchange in exchanges(config, batch, gpus):
            start = [exchange.name, exchange.formula, str(len(exchange.calls))]
            times = (_short(1000 * exchange.seconds(gpus, rate)) for rate in GIGABITS)
            rows.setdefault(exchange.name, start).append(" / ".join(times))
    images = f"N = {per_gpu} images a GPU" if per_gpu else f"N = {config.batch_size} images"
    rates = " / ".join(str(rate) for rate in GIGABITS)
    head = [f"ms at {rates} Gb/s, {images}", "bytes", "calls", *(f"{n} GPUs" for n in columns)]
    lines = [f"| {' | '.join(line)} |" for line in (head, *rows.values())]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def _short(number: float) -> str:
    return f"{number:.2g}" if number < 100 else f"{number:.0f}"


def conclusion(config: PretrainConfig) -> str:
    """The paper's argument in numbers: what is sent beside the gradients, as a share of them."""
    sentences = []
    for gpus, batch in ((64, config.batch_size), (512, 64 * 512)):
        first, *others = exchanges(config, batch, gpus)
        base = first.seconds(gpus, 1)
        shares = (f"{e.name} {_short(100 * e.seconds(gpus, 1) / base)} %" for e in others)
        sentences.append(f"on {gpus} GPUs with {batch} images, {', '.join(shares)}")
    return f"Bytes as a share of the gradients': {'; and '.join(sentences)}."

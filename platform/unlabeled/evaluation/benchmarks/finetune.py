"""Fine-tuning: how well the weights start a training that may change all of them."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from unlabeled.config.ranges import positive
from unlabeled.config.schema import SyncBatchNormConfig
from unlabeled.data.sources.base import Source
from unlabeled.data.sources.labelled_subset import LabelledSubset, choose
from unlabeled.data.sources.subset import Subset
from unlabeled.engine.build import training_images
from unlabeled.evaluation.accuracy import top_accuracy
from unlabeled.evaluation.benchmarks.base import Benchmark, Probe, Test, require_labels
from unlabeled.evaluation.features import extract
from unlabeled.evaluation.finetuning import Network, finetune
from unlabeled.evaluation.layer_probe import of_layer
from unlabeled.evaluation.sgd_settings import epoch_rate, sgd_problems
from unlabeled.evaluation.training_views import training_view, training_views, view_problems
from unlabeled.registry import Component, register

log = logging.getLogger(__name__)

SYNCHRONISED = SyncBatchNormConfig(enabled=True, group_size=None)
NAMED_IN_LOG = 20
SECONDS_BETWEEN_LINES = 10.0


@register("benchmark", "finetune")
class Finetune(Benchmark):
    """Classification by the whole network, trained on all or on a few of the labels.

    Cross-entropy of a linear classifier on the backbone, minimised over both by SGD with a rate for
    each, on augmented views, batch normalisation in training mode. A copy is trained; the backbone
    that is measured stays as it is. Metrics, in percent: top1 and top5 after the last epoch,
    top1_best and top5_best of the epoch of the best top1, chosen on the test split. SwAV's
    published numbers are of the best epoch; compare those with top1_best.
    Raises DataError without labels, with differing classes, or where `subset` leaves a class
    without an image; DivergenceError when the loss does.
    Under DDP gradients are averaged and batch normalisation spans all ranks. batch_size is that of
    an optimizer step: its activations must fit the memory of the ranks.
    Reference: Caron et al., SwAV, arXiv:2006.09882, appendix A.4, and its eval_semisup.py.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of `configs/benchmark/finetune.yaml`."""

        epochs: int = 20
        """Passes over the labelled images (SwAV A.4)."""
        batch_size: int = 256
        """Images per step, over all ranks (SwAV A.4)."""
        lr: float = 0.01
        """Learning rate of the backbone in the first epoch (SwAV A.4, 10% of the labels)."""
        head_lr: float = 0.2
        """Learning rate of the classifier in the first epoch (SwAV A.4, 10% of the labels)."""
        lr_reference_batch_size: int | None = None
        """Multiply both rates by batch_size / this; null takes them as they are, like SwAV."""
        momentum: float = 0.9
        """SGD momentum (SwAV eval_semisup.py)."""
        nesterov: bool = False
        """Look-ahead momentum (VISSL)."""
        weight_decay: float = 0.0
        """L2 penalty on all weights, biases and normalisation layers included (SwAV A.4: none)."""
        schedule: Literal["cosine", "step"] = "step"
        """Per epoch: cosine towards 0, or x decay_factor at decay_epochs (SwAV A.4)."""
        decay_epochs: list[int] = field(default_factory=lambda: [12, 16])
        """Epochs at which schedule=step lowers the rates (SwAV A.4)."""
        decay_factor: float = 0.2
        """What schedule=step multiplies the rates by (SwAV A.4)."""
        precision: Literal["fp32", "bf16", "fp16"] = "fp32"
        """Type of the forward pass in training (SwAV eval_semisup.py: fp32); testing is in fp32."""
        subset: LabelledSubset | None = None
        """The training images whose labels count, chosen by the seed; null: all of them."""
        sync_batch_norm: SyncBatchNormConfig = SYNCHRONISED
        """Statistics over all ranks (SwAV eval_semisup.py)."""
        train_transform: Annotated[Component, "transform"] | None = None
        """The training view; null: a random resized crop and a flip at the size of the test view
        (SwAV eval_semisup.py)."""
        view: Annotated[Component, "transform"] | None = None
        """The test view (SEER: 384 px); null: the evaluation view of the run."""
        source: str = "SwAV, arXiv:2006.09882, A.4"
        """Where the settings come from, for the protocol of the result."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Ranges, and the number of views."""
            yield from positive(self, "head_lr")
            yield from sgd_problems(self, nesterov=self.nesterov)
            yield from view_problems("view", self.view)

        def learning_rates(self, epoch: int) -> tuple[float, float]:
            """The rates of a whole epoch: of the backbone and of the classifier."""
            return epoch_rate(self, self.lr, epoch), epoch_rate(self, self.head_lr, epoch)

    config: Config

    @property
    def protocol(self) -> str:
        lr, head_lr = self.config.learning_rates(0)
        return (
            f"all weights fine-tuned on {self.config.subset or 'all labels'}, "
            f"{self.config.epochs} epochs, SGD {lr:g} (classifier {head_lr:g}), batch "
            f"{self.config.batch_size}, {self.config.precision}, last epoch ({self.config.source})"
        )

    @property
    def files(self) -> tuple[Path, ...]:
        subset = self.config.subset
        return (Path(subset.list),) if subset is not None and subset.list is not None else ()

    def viewed(self, probe: Probe) -> Probe:
        return of_layer(probe, None, self.config.view)

    def run(self, probe: Probe) -> dict[str, float]:
        require_labels(probe)
        probe = self.viewed(probe)
        epochs: list[tuple[float, float]] = []
        said = time.monotonic()
        for network in self.train(probe):
            top1, top5 = _accuracies(network, probe)
            epochs.append((top1, top5))
            if time.monotonic() - said > SECONDS_BETWEEN_LINES:
                said = time.monotonic()
                place = f"{len(epochs)}/{self.config.epochs}"
                log.info("fine-tuning epoch %s: top1 %.2f", place, top1)
        best = max(epochs, key=lambda found: found[0])  # the first one of equals
        last = epochs[-1]
        return {"top1": last[0], "top1_best": best[0], "top5": last[1], "top5_best": best[1]}

    def fitted(self, probe: Probe) -> Test:
        require_labels(probe)
        (last,) = deque(self.train(probe), maxlen=1)

        def test(other: Probe) -> dict[str, float]:
            top1, top5 = _accuracies(last, other)
            return {"top1": top1, "top5": top5}

        return test

    def train(self, probe: Probe) -> Iterator[Network]:
        """The network after every epoch; nothing of the test split is looked at."""
        views = training_views(
            probe,
            self.labelled(probe),
            training_view(self.config.train_transform, probe),
            batch_size=self.config.batch_size,
        )
        return finetune(probe, views, self.config)

    def labelled(self, probe: Probe) -> Source:
        """The images that are trained on, as training reads them."""
        images = training_images(probe.train, probe.loader)
        if self.config.subset is None:
            return images
        chosen = choose(probe.train, self.config.subset, probe.seed)
        names = [probe.train.name(index) for index in chosen.tolist()]
        log.info(
            "fine-tuning on %d of %d images: %s%s",
            len(names),
            len(images),
            ", ".join(names[:NAMED_IN_LOG]),
            ", ..." if len(names) > NAMED_IN_LOG else "",
        )
        return Subset(images, chosen)


def _accuracies(network: Network, probe: Probe) -> tuple[float, float]:
    """Top-1 and top-5 in percent on the test split under the evaluation view."""
    scores = extract(
        network,
        probe.test,
        probe.pipeline,
        normalize=probe.normalize,
        device=probe.device,
        batch_size=probe.batch_size,
        loader=probe.loader,
    )
    assert scores.labels is not None
    top1, top5 = (top_accuracy(scores.features, scores.labels, k) for k in (1, 5))
    return top1, top5

"""What several methods check or derive before training starts."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import nn

from unlabeled.errors import ConfigError
from unlabeled.methods.base import DataFacts


def check_two_views(facts: DataFacts, what: str) -> None:
    """There is another view of every image; `what` the method does with it is for the message."""
    if len(facts.views) < 2:
        raise ConfigError(
            f"method: {what}; the transform emits {len(facts.views)} view, give it 2 or more"
        )


def check_assign_crops(
    crops: Sequence[int], facts: DataFacts, field: str = "crops_for_assign"
) -> None:
    """Every crop that makes a target exists among the views of the transform."""
    missing = [crop for crop in crops if not 0 <= crop < len(facts.views)]
    if missing or not crops or len(set(crops)) != len(crops):
        raise ConfigError(
            f"method.{field}: {list(crops)} must be distinct numbers of the "
            f"{len(facts.views)} views that the transform emits (0 to {len(facts.views) - 1})"
        )


def check_prototypes(head: nn.Module, facts: DataFacts) -> None:
    """The head has prototypes, and not more than there are samples to share among them."""
    prototypes = getattr(head, "prototypes", None)
    if prototypes is None:
        raise ConfigError(
            f"head: this method needs prototypes and {type(head).__name__} has none; "
            "use head=prototypes"
        )
    largest = max(layer.out_features for layer in prototypes)
    if largest > facts.num_samples:
        raise ConfigError(
            f"head.num_prototypes: {largest} prototypes for {facts.num_samples} training images; "
            "a prototype needs several images to stand for, so give fewer prototypes"
        )


def check_assigner(assigner: object, wanted: type, *, example: str) -> None:
    """The code-maker sees what the method gives it: a batch of scores, or a whole data set."""
    if not isinstance(assigner, wanted):
        raise ConfigError(
            f"assigner: {type(assigner).__name__} is no {wanted.__name__}, which this method "
            f"needs; use assigner={example}"
        )


def freeze_steps(steps: int | None, facts: DataFacts) -> int:
    """Steps with frozen prototypes: as given, or the beginning of the run."""
    return opening_steps(1, facts) if steps is None else steps


def opening_steps(epochs: int, facts: DataFacts) -> int:
    """Steps of the first epochs; in a run of less than two, of its first hundredth.

    One epoch is the first hundredth of the papers' shortest runs; of a single pass over the data it
    would be all.
    """
    if epochs and facts.total_steps is not None and short_of_two_epochs(facts):
        return math.ceil(facts.total_steps / 100)
    return epochs * facts.steps_per_epoch


def short_of_two_epochs(facts: DataFacts) -> bool:
    """Whether the run is a single pass over the data, or hardly more."""
    return facts.total_steps is not None and facts.total_steps < 2 * facts.steps_per_epoch

"""Any image model of the timm library, by its name there."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from torch import nn

from unlabeled.errors import ConfigError, EnvironmentProblem
from unlabeled.registry import register


@register("backbone", "timm")
class Timm(nn.Module):
    """A timm model without its classifier: images [B, 3, h, w] -> features [B, feature_dim].

    What is built is timm's own module with `feature_dim` added, so parameters keep timm's names.
    An unknown model name, or an option that the model does not take, raises ConfigError; a missing
    timm, or pretrained weights that cannot be fetched, EnvironmentProblem.
    Vision transformers take crops of several sizes with `options: {dynamic_img_size: true}`.
    Reference: Wightman 2019, https://github.com/huggingface/pytorch-image-models.
    """

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Fields of the backbone."""

        model: str = "resnet50"
        """Name in timm, as `timm.list_models()` spells it."""
        pretrained: bool = False
        """Start from timm's published weights (a download)."""
        options: dict[str, bool | int | float | str] = field(default_factory=dict)
        """Further arguments of timm.create_model, such as drop_path_rate or dynamic_img_size."""

        def problems(self) -> Iterator[tuple[str, str]]:
            """Faults of the values."""
            own = {"num_classes", "pretrained", "model_name"} & set(self.options)
            if own:
                yield "options", f"must not contain {', '.join(sorted(own))}: it is set for you"

    def __new__(cls, config: Config) -> Any:
        timm = _import_timm()
        _check_name(timm, config.model)
        model = _create(timm, config)
        # Some families (MobileNetV3, VGG) have a layer between num_features and the classifier.
        model.feature_dim = getattr(model, "head_hidden_size", None) or model.num_features
        options = "".join(f", {key}={value!r}" for key, value in config.options.items())
        model.how_to_load = (
            f"import timm\nm = timm.create_model({config.model!r}, num_classes=0{options})"
        )
        return model


def _import_timm() -> ModuleType:
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise EnvironmentProblem(
            "backbone=timm needs the timm library, which is not installed; "
            "run `pip install 'unlabeled[timm]'`"
        ) from error


def _check_name(timm: ModuleType, name: str) -> None:
    """`name` may carry the tag of a set of weights after a point: `resnet50.a1_in1k`."""
    architecture = name.split(".", 1)[0]
    if timm.is_model(architecture):
        return
    close = difflib.get_close_matches(architecture, timm.list_models(), n=5, cutoff=0.5)
    hint = f"did you mean {', '.join(close)}?" if close else "see timm.list_models()"
    raise ConfigError(f"backbone.model: timm {timm.__version__} has no model {name!r}; {hint}")


def _create(timm: ModuleType, config: Timm.Config) -> Any:
    try:
        return timm.create_model(
            config.model, pretrained=config.pretrained, num_classes=0, **config.options
        )
    except TypeError as error:
        if not config.options:
            raise
        raise ConfigError(
            f"backbone.options: {config.model!r} does not take {config.options}: {error}"
        ) from error
    except (OSError, RuntimeError) as error:
        if not config.pretrained:
            raise
        raise EnvironmentProblem(
            f"cannot get timm's pretrained weights of {config.model!r}: {error}; "
            "set backbone.pretrained=false or provide a network connection"
        ) from error

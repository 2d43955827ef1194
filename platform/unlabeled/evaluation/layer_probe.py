"""A probe of other features than the backbone's own: those of inner layers, or of another view."""

from __future__ import annotations

from dataclasses import replace

from unlabeled.evaluation.benchmarks.base import Probe
from unlabeled.evaluation.layers import Layer, Taps
from unlabeled.registry import Component


def of_layers(probe: Probe, taps: Taps) -> Probe:
    """The probe with the maps of all layers as features, which are not those of its cache."""
    return replace(probe, encode=taps, feature_dim=taps.feature_dim, cache={})


def of_layer(probe: Probe, layer: Layer | None, view: Component | None) -> Probe:
    """The probe with the pooled map of a layer, under a view; of null, what it has already.

    ConfigError for a layer that the backbone does not have or does not run.
    """
    if view is not None:
        probe = replace(probe, pipeline=view.build(), cache={})
    if layer is None:
        return probe
    size = probe.pipeline.views[0].size
    return of_layers(probe, Taps(probe.backbone, {"": layer}, size=size, device=probe.device))

"""Centring alone."""

from __future__ import annotations

import torch

from unlabeled.assigners.centered_scores import CenteredScores
from unlabeled.assigners.centering import Centering


def test_targets_are_the_scores_without_the_centre_of_the_steps_before() -> None:
    assigner, other = CenteredScores(CenteredScores.Config()), Centering(Centering.Config())
    for each in (assigner, other):
        each.begin(4)
    for step in range(3):
        scores = torch.randn(6, 4, generator=torch.Generator().manual_seed(step))
        before = assigner.center.clone()
        torch.testing.assert_close(assigner(scores), scores - before)
        other(scores)
        for each in (assigner, other):
            each.after_step()
        assert torch.equal(assigner.center, other.center)  # one rule for both
    assert not torch.equal(assigner.center, before)


def test_they_are_no_codes() -> None:
    assert not CenteredScores.makes_codes
    assert Centering.makes_codes


def test_faults_name_the_field() -> None:
    faults = dict(CenteredScores.Config(momentum=-0.1).problems())
    assert set(faults) == {"momentum"}
    assert not list(CenteredScores.Config().problems())

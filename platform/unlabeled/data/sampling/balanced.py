"""Samples drawn equally often from every group, however large the groups are."""

from __future__ import annotations

import numpy as np


def equal_draws(groups: np.ndarray, count: int, random: np.random.RandomState) -> np.ndarray:
    """`count` samples (int64) in random order, as many of every group as of any other.

    groups: [N] int64, the group of each sample; negative: a sample that is never drawn. Every group
    g that has samples gives floor(count / groups) + 1 draws: without replacement where it has more
    samples than that, with replacement otherwise. All draws are shuffled and the first `count` are
    kept, so every sample of equal groups is about equally likely, and none of a large group counts
    for more than one of a small one. The draws are a function of `random`'s state alone. ValueError
    if no sample has a group.
    Reference: Caron et al. 2018, section 3.2; `UnifLabelSampler` of the official code.
    """
    drawn = np.flatnonzero(groups >= 0)
    if not len(drawn):
        raise ValueError("no sample has a group")
    by_group = drawn[np.argsort(groups[drawn], kind="stable")]
    ends = np.flatnonzero(np.diff(groups[by_group])) + 1
    members = np.split(by_group, ends)  # in order of the group's number, then of the sample
    size = count // len(members) + 1
    draws = [random.choice(group, size, replace=len(group) <= size) for group in members]
    order = np.concatenate(draws)
    random.shuffle(order)
    return order[:count].astype(np.int64)

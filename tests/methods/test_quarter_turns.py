"""Quarter turns move pixels and nothing else."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from unlabeled.methods.quarter_turns import TURNS, all_turns, each_turned, quarter_turn


def test_a_turn_is_counterclockwise() -> None:
    image = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[None, None]
    assert quarter_turn(image, 1)[0, 0].tolist() == [[2.0, 4.0], [1.0, 3.0]]


def test_turns_are_those_of_pil_and_change_no_value() -> None:
    pixels = torch.randint(0, 256, (1, 3, 5, 7), dtype=torch.uint8)
    picture = Image.fromarray(pixels[0].permute(1, 2, 0).numpy())
    for turns in range(TURNS):
        expected = np.asarray(picture.rotate(90 * turns, expand=True))
        assert np.array_equal(quarter_turn(pixels, turns)[0].permute(1, 2, 0).numpy(), expected)


def test_turns_form_the_group_of_four() -> None:
    images = torch.randn(2, 3, 4, 6)
    for first in range(TURNS):
        for second in range(TURNS):
            twice = quarter_turn(quarter_turn(images, first), second)
            assert torch.equal(twice, quarter_turn(images, (first + second) % TURNS))
    assert torch.equal(quarter_turn(images, TURNS), images)


def test_all_turns_come_turn_after_turn() -> None:
    images = torch.randn(3, 2, 4, 4)
    turned = all_turns(images)
    assert turned.shape == (12, 2, 4, 4)
    for turns in range(TURNS):
        for n in range(3):
            assert torch.equal(turned[turns * 3 + n], quarter_turn(images[n : n + 1], turns)[0])


def test_each_image_gets_its_own_turn_and_the_batch_stays_as_it_is() -> None:
    images = torch.randn(5, 3, 4, 4)
    before, turns = images.clone(), torch.tensor([3, 0, 2, 1, 1])
    turned = each_turned(images, turns)
    for n, number in enumerate(turns.tolist()):
        assert torch.equal(turned[n], quarter_turn(images[n : n + 1], number)[0])
    assert torch.equal(images, before)

from __future__ import annotations

from unlabeled.optim.schedulers.constant import Constant


def test_the_rate_stays_at_its_base_after_the_ramp() -> None:
    config = Constant.Config(lr=0.5, lr_reference_batch_size=None, warmup_epochs=0.3)
    rate = Constant(config, total_steps=50, steps_per_epoch=10, batch_size=4096)
    assert [rate(t) for t in range(3)] == [0.0, 0.25, 0.5]
    assert {rate(t) for t in range(3, 60)} == {0.5}

"""A plugin for commands that are started; the tests' own process must not register the hook."""

from tests_support.signal_at_step import SignalAtStep
from unlabeled.registry import register

register("hook", "signal_at_step")(SignalAtStep)

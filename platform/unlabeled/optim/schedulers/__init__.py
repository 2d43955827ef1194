"""Schedules: pure functions from the step to a value."""

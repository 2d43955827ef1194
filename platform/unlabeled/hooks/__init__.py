"""Hooks: everything that happens around the training step."""

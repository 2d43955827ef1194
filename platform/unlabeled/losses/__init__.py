"""Losses: pure mathematics in float32, tensors in, scalar out."""

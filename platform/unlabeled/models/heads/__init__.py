"""Heads: pooled features to what a loss compares."""

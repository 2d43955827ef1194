"""Networks: backbones, heads and their weights on disk."""

"""Backbones: images [B, 3, h, w] to pooled features [B, feature_dim]."""

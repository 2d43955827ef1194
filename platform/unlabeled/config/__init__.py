"""Typed, strict configuration: composed by Hydra, checked against dataclasses, never rewritten."""

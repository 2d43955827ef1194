"""Self-supervised pretraining of vision models, and the measurement of what they learned."""

__version__ = "0.1.0"

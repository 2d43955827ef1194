"""What the features are worth: frozen features, benchmarks and their results."""

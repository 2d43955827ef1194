"""Meters: numbers about the features and the codes, gathered over an epoch."""

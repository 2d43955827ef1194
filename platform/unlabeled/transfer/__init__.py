"""Other people's detectors on our backbones: the only room that knows their libraries."""

"""From files to batches of views: sources, sampling, decoding, transforms, loading."""

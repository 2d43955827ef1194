"""Tables of papers, run again: `unlabeled study`."""

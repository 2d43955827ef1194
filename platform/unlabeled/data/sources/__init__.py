"""Data sets: an index over images and, where there are any, their labels."""

"""Sample orders as pure functions of (seed, epoch, position)."""

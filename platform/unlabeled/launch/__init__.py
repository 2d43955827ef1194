"""How a job gets its processes."""

"""What is done to pixels, apart from what is decided about them: the backends of the transforms."""

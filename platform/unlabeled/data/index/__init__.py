"""An index of images of any number: built with bounded memory, opened at once, read by place."""

"""The only room that imports torch.distributed."""

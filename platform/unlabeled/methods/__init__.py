"""Methods: how backbone, head, loss and assigner make one training step."""

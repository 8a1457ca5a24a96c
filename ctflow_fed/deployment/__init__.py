"""Starting a federation: where Flower meets a machine."""

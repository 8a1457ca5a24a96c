"""What runs at a hospital, under a Flower SuperNode."""

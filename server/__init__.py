"""What runs at the coordinator, under a Flower SuperLink."""

"""What a hospital decides for itself, enforced outside the bundle that it is sent."""

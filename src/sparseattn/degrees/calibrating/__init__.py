"""What each radius is worth to a model as it is, without training."""

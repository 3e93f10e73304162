"""How fast a plan makes a model: predicted from a few measurements, or measured."""

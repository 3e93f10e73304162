"""Training a model with transformers' Trainer: arguments, seeds, checkpoints, steps."""

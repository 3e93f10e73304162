"""Tasks: labelled text, tokenised for a model, and how its answers are scored."""

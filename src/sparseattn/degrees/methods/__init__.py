"""The methods, by what they need: nothing but counts, or the model."""

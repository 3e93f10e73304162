"""Reaching into transformers. Nothing outside this package knows its insides."""

"""More positions for a pretrained encoder, so that it takes long documents. Light to import."""

__all__ = ["PLAN"]

#: What a lengthened model attends to, unless the user says otherwise.
PLAN = "neighbor(radius=64) | global(cls)"

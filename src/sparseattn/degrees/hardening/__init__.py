"""From what radii are worth to a plan within a budget."""

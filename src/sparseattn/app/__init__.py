"""The explorer: masks, heads and studies in a browser, on one's own machine."""

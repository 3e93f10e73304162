"""The rankings, one a file."""

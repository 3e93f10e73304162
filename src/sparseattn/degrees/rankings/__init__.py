"""The rankings, alike ones in a file."""

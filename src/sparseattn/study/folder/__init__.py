"""The folder of a study: trials stored, claimed, read, packed."""

"""Running what is missing of a study, and saying beforehand what that would take."""

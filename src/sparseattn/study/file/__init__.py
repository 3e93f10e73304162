"""What a study file says, and the study that it resolves to."""

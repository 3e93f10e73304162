"""What the commands read, write and show."""

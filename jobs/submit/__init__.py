"""Send a command to a Ray cluster and follow it."""

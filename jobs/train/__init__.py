"""Training on this machine's terminal or on Ray Train."""

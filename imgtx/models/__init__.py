"""What a model is, how a reference finds it, and how weights are read and written."""

"""Quality on benchmark datasets, one file a protocol, and model cards."""

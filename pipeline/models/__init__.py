"""Models in object storage: versioned stores, references, and the local cache."""

"""Training text-to-image: its spec, captioned pictures, batches and objective."""

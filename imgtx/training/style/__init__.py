"""Training style transfer: its spec, batches, losses and objective, and one image optimised by the same losses."""

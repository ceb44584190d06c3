"""Measure a model: halo, precisions, speed, torch.compile."""

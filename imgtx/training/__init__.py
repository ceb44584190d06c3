"""Train a model from images in memory; torch, NumPy and Pillow are enough."""

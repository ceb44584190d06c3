"""Train a model from images in memory; torch, NumPy, Pillow and safetensors are enough."""

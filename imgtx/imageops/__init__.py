"""Functions on pixel arrays in NumPy: geometry, resizing, holes, noise, metrics."""

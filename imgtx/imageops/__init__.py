"""Functions on pixel arrays, in NumPy alone: geometry, resizing, holes, noise, metrics."""

"""Ray itself: its session and environment, pool sizes, draining nodes, metrics."""

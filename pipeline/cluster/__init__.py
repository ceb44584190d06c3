"""The Ray session, pool sizes, draining nodes, metrics."""

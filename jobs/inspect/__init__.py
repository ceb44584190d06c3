"""Look at a destination: status, watch, Prometheus."""

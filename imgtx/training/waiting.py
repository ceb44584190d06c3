"""How torch's threads wait for each other. Without torch, which reads it when it is loaded."""

import os

# How often a waiting thread looks before it sleeps: microseconds, by default milliseconds, thousands of times a step.
SPINS = {"GOMP_SPINCOUNT": "10000"}


def wait_briefly() -> None:
    """Let torch's threads sleep soon instead of waiting actively, unless the user's environment says how they wait."""
    if "OMP_WAIT_POLICY" not in os.environ:
        for name, value in SPINS.items():
            os.environ.setdefault(name, value)

"""Style transfer beside runs: contact sheets."""

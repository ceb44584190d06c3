"""Settings that Ray and torch read once, when they are imported or started."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests share the machine with Ray's workers
os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # else Ray writes a token into the home folder
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

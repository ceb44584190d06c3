"""Build the feature networks that are not yet in the user's cache: `python -m imgtx.training.features`."""

import sys

from imgtx.errors import USAGE, UsageError
from imgtx.training.features.networks import NETWORKS
from imgtx.training.features.packages import cached


def main() -> int:
    for name, network in NETWORKS.items():
        try:
            path = cached(name) if cached(name).is_file() else network.build()
        except UsageError as error:
            print(f"{name}: {error}", file=sys.stderr)
            return USAGE
        print(f"{name}: {path} (out of {network.source.requirement}, {network.source.licence})")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Run every evaluation protocol of the restoring models, into bench/results/restore_quality.json.

    python -m bench.restore_quality BENCHMARKS [--restore MODEL] [--inpaint MODEL]

BENCHMARKS has the folders kodak24 and live1, and cbsd68.txt beside b100. Baselines run if they are installed
(`pip install -e ".[controls]"`). It takes about an hour on one core.
"""

import argparse
import os
from pathlib import Path

from rich.console import Console

from bench.report import save
from imgtx.models.references import read_info
from jobs.evaluation.datasets import find_datasets
from jobs.evaluation.protocol import run_protocol
from jobs.evaluation.protocols import PROTOCOLS
from jobs.evaluation.report import print_protocol


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("benchmarks", type=Path)
    parser.add_argument("--restore", default="restore")
    parser.add_argument("--inpaint", default="inpaint")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found = {}
    for model in (options.restore, options.inpaint):
        info, _ = read_info(model)
        for name, protocol in PROTOCOLS.items():
            if protocol.task != info.task:
                continue
            paths = [
                options.benchmarks / (f"{set_}.txt" if set_ == "cbsd68" else set_)
                for set_ in protocol.datasets
            ]
            report = run_protocol(protocol, model, find_datasets(paths))
            found[name] = report.to_dict()
            print_protocol(report, protocol.published, Console(width=120))
            save("restore_quality", {"protocols": found})


if __name__ == "__main__":
    main()

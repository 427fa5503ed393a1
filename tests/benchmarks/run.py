"""Run the benchmarks, one after the other and each in a process of its own, and keep their rows for the documentation.

``python tests/benchmarks/run.py [NAME…] [--rounds N] [--results docs/results/benchmarks]``
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from zoo.results import commit, hardware, versions

HERE = Path(__file__).parent
NAMES = ("throughput", "families", "fast", "step_profile", "timm_loop", "data_speed", "startup", "style")
NAMES += ("detection_metrics", "detectors", "caption_scores", "captioning", "generation")


def run(name: str, rounds: int | None) -> dict[str, object]:
    """What a benchmark measured: the last line that it prints is JSON with ``title``, ``about`` and ``rows``."""
    words = [sys.executable, str(HERE / f"{name}.py"), *(["--rounds", str(rounds)] if rounds else [])]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    last = ""
    for line in process.stdout or ():
        if last:
            print(last, end="", flush=True)
        last = line
    if process.wait():
        sys.exit(f"{name} ended with status {process.returncode}")
    return json.loads(last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--rounds", type=int, help="of each; left out, each has its own number")
    parser.add_argument("--results", type=Path, default=HERE.parent.parent / "docs" / "results" / "benchmarks")
    options = parser.parse_args()
    options.results.mkdir(parents=True, exist_ok=True)
    for name in options.names or NAMES:
        found = run(name, options.rounds)
        found |= {"hardware": hardware(), "versions": versions(), "commit": commit(), "date": time.strftime("%Y-%m-%d")}
        found["command"] = f"python tests/benchmarks/run.py {name}"
        (options.results / f"{name}.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

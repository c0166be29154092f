"""Make the bundled model anew: ``python tools/compact/make.py --data FOLDER [--work FOLDER]``, or ``make weights``.

From the corpus and the judgements beside this file: silver labels, simulated tiles, a network for each data set that is
left out and one of all, their scores of the judged cells, and the tables of ``docs/bundled_model.md``. What is there
already is not made again, so that a run that was stopped goes on. About three hours on two cores with AMX.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from corpus import PIXEL_SIZE

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
#: Steps of the network of all data sets, and of each that leaves one out.
STEPS, LEFT_OUT_STEPS = 5500, 2200


def main() -> None:
    """Run all steps; two networks are trained at a time, one thread each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "compact")
    parser.add_argument("--start", default=HERE / "start.safetensors")
    options = parser.parse_args()
    if not options.data.is_dir():
        sys.exit(f"The corpus is not here ({options.data}); see tools/compact/README.md for its sources.")

    def run(script: str, *arguments: object) -> None:
        subprocess.run([sys.executable, HERE / f"{script}.py", *map(str, arguments)], check=True)

    if not (options.work / "factors.csv").exists():
        run("prepare", options.data, options.work)
    jobs = [("final", ["--steps", STEPS, "--seed", 2])]
    jobs += [(f"without_{d}", ["--without", d, "--steps", LEFT_OUT_STEPS]) for d in PIXEL_SIZE]

    def network(job: tuple[str, list[object]]) -> None:
        name, settings = job
        if not (options.work / "runs" / name / "final.pt").exists():
            run("train", options.work, name, "--start", options.start, *settings)
        only = ["--gold"] if name == "final" else ["--only", name.removeprefix("without_")]
        run("score", options.work, name, "--start", options.start, *only)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(network, jobs))
    run("score", options.work, "start", "--start", options.start, "--gold")
    run("report", options.work)
    run("bundle", options.work)


if __name__ == "__main__":
    main()

"""Measure what the detector loses in its cheaper forms.

    python -m benchmarks.detectors

Two stages against one, and a bounded branch in int8 against float, on the victims of
``benchmarks.defence``. Results are added to ``benchmarks/results/detectors.jsonl``, a line per
victim; what is there is not measured again. ``detectors.md`` is made from them anew each time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Measure what is missing, then render."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    results = ROOT / "benchmarks/results/detectors.jsonl"
    parser.add_argument("--cache", type=Path, default=ROOT / "build/defence/victims")
    parser.add_argument("--results", type=Path, default=results)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes, a thread each")
    parser.add_argument("--render-only", action="store_true", help="measure nothing")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes to come
    from benchmarks.defence import cells, sizes
    from benchmarks.detectors import forms, tables

    every = dict.fromkeys(c.victim for c in sizes.full() if c.victim.share is None)
    order = [victim.label for victim in every]
    known = {record["victim"] for record in cells.read(options.results)}
    todo = [victim for victim in every if victim.label not in known]
    if options.render_only:
        todo = []
    print(f"{len(known)} victims measured already, {len(todo)} to measure", flush=True)
    failed = 0
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        jobs = {pool.submit(forms.measure, victim, options.cache): victim for victim in todo}
        for job in as_completed(jobs):
            if (error := job.exception()) is not None:
                failed += 1
                print(f"FAILED {jobs[job].label}", file=sys.stderr)
                traceback.print_exception(error)
                continue
            cells.append(options.results, job.result())
            print(jobs[job].label, flush=True)
    found = {record["victim"]: record for record in cells.read(options.results)}
    records = [found[label] for label in order if label in found]
    if records:
        text = "".join(json.dumps(record) + "\n" for record in records)
        ordered = options.results.with_suffix(".part")
        ordered.write_text(text)
        ordered.replace(options.results)
        options.results.with_suffix(".md").write_text(tables.render(records))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

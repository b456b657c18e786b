"""Benchmarks that measure something of each of many victims, and go on where they stopped."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.defence.victims import Victim

ROOT = Path(__file__).resolve().parents[1]


def parser(told: str | None, name: str) -> argparse.ArgumentParser:
    """Options of such a benchmark, whose results are ``benchmarks/results/NAME.jsonl``."""
    found = argparse.ArgumentParser(
        description=told, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    results = ROOT / f"benchmarks/results/{name}.jsonl"
    found.add_argument("--cache", type=Path, default=ROOT / "build/defence/victims")
    found.add_argument("--results", type=Path, default=results)
    found.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes, a thread each")
    found.add_argument("--render-only", action="store_true", help="measure nothing")
    return found


def measured(
    options: argparse.Namespace,
    every: Sequence[Victim],
    measure: Callable[[Victim, Path], dict[str, Any]],
    key: str,
) -> tuple[list[dict[str, Any]], int]:
    """Measure what is missing, each victim in one process on one thread.

    Args:
        options: Those of ``parser``.
        every: The victims.
        measure: Makes a record of a victim, which is trained first where it is not in the cache.
        key: Where a record has the victim's label.

    Returns:
        The records in the order of the victims, and how many failed.
    """
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes to come
    from benchmarks.defence import cells

    known = {record[key] for record in cells.read(options.results)}
    todo = [victim for victim in every if victim.label not in known and not options.render_only]
    print(f"{len(known)} victims measured already, {len(todo)} to measure", flush=True)
    failed = 0
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        jobs = {pool.submit(measure, victim, options.cache): victim for victim in todo}
        for job in as_completed(jobs):
            if (error := job.exception()) is not None:
                failed += 1
                print(f"FAILED {jobs[job].label}", file=sys.stderr)
                traceback.print_exception(error)
                continue
            cells.append(options.results, job.result())
            print(jobs[job].label, flush=True)
    found = {record[key]: record for record in cells.read(options.results)}
    records = [found[victim.label] for victim in every if victim.label in found]
    if todo:
        ordered = options.results.with_suffix(".part")
        ordered.write_text("".join(json.dumps(record) + "\n" for record in records))
        ordered.replace(options.results)
    return records, failed

"""Attacks against defences.

    python -m benchmarks.defence --size quick
    python -m benchmarks.defence --size full --jobs 16 --publish
    python -m benchmarks.defence --size full --only-attack wanet --only-method mmac-universal

Results are added to ``RESULTS.jsonl``, a line per cell; what is there is not measured again, so an
interrupted run goes on where it stopped. ``RESULTS.md`` and ``RESULTS.png`` are made from them anew
each time.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.defence.cells import Cell
    from benchmarks.defence.victims import Victim

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Run what is missing of a size, then render."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=["quick", "full", "held-out"], default="quick")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes, a thread each")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="to learn on")
    parser.add_argument("--results", type=Path, help="[benchmarks/results/defence-SIZE.jsonl]")
    parser.add_argument("--cache", type=Path, default=ROOT / "build/defence/victims")
    parser.add_argument("--cifar10", type=Path, help="folder of CIFAR-10 in its binary layout")
    for name in ("attack", "method", "dataset", "network"):
        parser.add_argument(f"--only-{name}", nargs="+", help="leave out the others")
    parser.add_argument("--only-seed", nargs="+", type=int)
    parser.add_argument("--only-clean", nargs="+", type=int, help="sizes of the clean set")
    parser.add_argument("--render-only", action="store_true", help="measure nothing")
    parser.add_argument(
        "--publish",
        action="store_true",
        help="write into README, documentation and the report's statement",
    )
    options = parser.parse_args()
    if options.publish and options.size != "full":
        parser.error("--publish is of the full size")

    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes to come
    from benchmarks.defence import cells, figures, publish, sizes, tables
    from mmbm_onnx.errors import RuntimeMissingError
    from mmbm_onnx.pipeline.devices import torch_device

    try:
        torch_device(options.device)
    except RuntimeMissingError as error:
        parser.error(str(error))
    file = options.results or ROOT / f"benchmarks/results/defence-{options.size}.jsonl"
    if options.size == "full":
        everything = sizes.full(cifar10=options.cifar10 is not None)
    else:
        everything = {"quick": sizes.quick, "held-out": sizes.held_out}[options.size]()
    wanted = [cell for cell in everything if _chosen(cell, options)]
    todo = cells.missing(wanted, cells.read(file))
    print(f"{len(wanted)} cells, {len(wanted) - len(todo)} measured already", flush=True)
    failed = 0 if options.render_only else _measure(todo, file, options)
    keys = {cell.key() for cell in everything}
    records = [record for record in cells.read(file) if record["key"] in keys]
    states = [record.get("code") for record in records if "hardened" in record]
    untold = states.count(None)
    if untold:
        print(f"{untold} records do not tell what state of mmbm_onnx/ they are of")
    if other := len(states) - untold - states.count(cells.our_code()):
        print(f"{other} records are of another state of mmbm_onnx/; take out those that it changes")
    if options.publish:
        measured = len(records)
        records = cells.complete(everything, records)
        print(f"{measured - len(records)} records left out, of methods not measured everywhere yet")
    if records:
        file.with_suffix(".md").write_text(tables.render(records))
        figures.draw(records, file.with_suffix(".png"))
        if options.publish:
            held_out = cells.complete(sizes.held_out(), cells.read(publish.HELD_OUT))
            publish.publish(records, held_out)
        print(f"{len(records)} records in {file}, tables in {file.with_suffix('.md')}")
    return 1 if failed else 0


def _measure(todo: list[Cell], file: Path, options: argparse.Namespace) -> int:
    """Victim by victim, each trained by one process before its cells. Returns failures."""
    from benchmarks.defence import cells, victims

    failed, done = 0, 0
    started = time.perf_counter()
    untrained = deque(dict.fromkeys(cell.victim for cell in todo))
    ready: deque[Cell] = deque()
    running: dict[Future, Victim | Cell] = {}
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        while running or ready or untrained:
            while len(running) < options.jobs and (ready or untrained):
                if ready:
                    cell = ready.popleft()
                    job = pool.submit(
                        cells.run, cell, options.cache, options.cifar10, options.device
                    )
                    running[job] = cell
                else:
                    victim = untrained.popleft()
                    job = pool.submit(victims.ensure, victim, options.cache, options.cifar10)
                    running[job] = victim
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                what = running.pop(future)
                if future.exception() is not None:
                    failed += _tell(what, future.exception())
                elif isinstance(what, cells.Cell):
                    done += 1
                    cells.append(file, future.result())
                    minutes = (time.perf_counter() - started) / 60
                    print(f"{done}/{len(todo)} {minutes:.0f} min  {what.label}", flush=True)
                else:
                    ready.extend(cell for cell in todo if cell.victim == what)
    return failed


def _tell(job: Victim | Cell, error: BaseException | None) -> int:
    print(f"FAILED {job.label}", file=sys.stderr)
    traceback.print_exception(error)
    return 1


def _chosen(cell: Cell, options: argparse.Namespace) -> bool:
    victim = cell.victim
    wanted = [
        (victim.attack, options.only_attack),
        (cell.method, options.only_method),
        (victim.dataset, options.only_dataset),
        (victim.network, options.only_network),
        (victim.seed, options.only_seed),
        (cell.clean, options.only_clean),
    ]
    return all(names is None or value in names for value, names in wanted)


if __name__ == "__main__":
    sys.exit(main())

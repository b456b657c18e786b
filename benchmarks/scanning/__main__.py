"""Scan networks with a backdoor and without.

    python -m benchmarks.scanning

Those with one are the victims of ``benchmarks.defence``, those without are trained the same way on
clean data. Results are added to ``benchmarks/results/scanning.jsonl``, a line per network; what is
there is not measured again. ``scanning.md`` is made from them anew each time, and with
``--publish`` the tables in ``docs/scanning.md``.
"""

from __future__ import annotations

import argparse
import json
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/scanning.md"
BEGIN, END = "<!-- scanning: begin -->", "<!-- scanning: end -->"


def main() -> None:
    """Scan what is missing, then render."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    results = ROOT / "benchmarks/results/scanning.jsonl"
    parser.add_argument("--cache", type=Path, default=ROOT / "build/defence/victims")
    parser.add_argument("--results", type=Path, default=results)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes, a thread each")
    parser.add_argument("--render-only", action="store_true", help="measure nothing")
    parser.add_argument("--publish", action="store_true", help="write docs/scanning.md's tables")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes to come
    from benchmarks.scanning import networks, tables

    records = networks.read(options.results)
    known = {record["network"] for record in records}
    todo = [victim for victim in networks.all_of_them() if victim.label not in known]
    if options.render_only:
        todo = []
    print(f"{len(known)} networks scanned already, {len(todo)} to scan", flush=True)
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(networks.scan, victim, options.cache) for victim in todo]
        for job in as_completed(jobs):
            record = job.result()
            with options.results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
            print(record["network"], record["scores"], flush=True)
    order = [victim.label for victim in networks.all_of_them()]
    records = sorted(
        networks.read(options.results), key=lambda record: order.index(record["network"])
    )
    if not options.render_only:
        options.results.write_text("".join(json.dumps(record) + "\n" for record in records))
    options.results.with_suffix(".md").write_text(tables.render(records))
    if options.publish:
        before, rest = PAGE.read_text("utf-8").split(BEGIN)
        after = rest.split(END)[1]
        text = f"{before}{BEGIN}\n\n{tables.for_readers(records)}\n\n{END}{after}"
        PAGE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

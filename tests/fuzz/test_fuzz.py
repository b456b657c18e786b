"""Thousands of damaged files: refused in a line, or taken and right; nothing else.

A longer run: ``MMBM_FUZZ=100000 pytest tests/fuzz``, which goes through other seeds after these.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("worker.py")
TIMES = int(os.environ.get("MMBM_FUZZ", "0"))
# How many in CI; a longer run has as many more of each as make up its number.
COUNTS = {"model": 2400, "outside": 800, "config": 1600, "archive": 800, "images": 400}
PART = 200  # that one process goes through

PARTS = [
    (kind, start)
    for kind, count in COUNTS.items()
    for start in range(0, max(count, count * TIMES // sum(COUNTS.values())), PART)
]


def test_there_are_as_many_as_are_promised() -> None:
    assert sum(COUNTS.values()) >= 5000
    assert len(PARTS) * PART >= 5000


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "start"), PARTS)
def test_damaged_files_are_refused_or_right(kind: str, start: int, tmp_path: Path) -> None:
    command = [sys.executable, str(WORKER), str(tmp_path), kind, str(start), str(PART)]
    tests = WORKER.parents[1]
    path = os.pathsep.join([str(tests), str(tests / "corpus")])
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(command, capture_output=True, text=True, timeout=1800, env=env)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    last = lines[-1]["seed"] if lines else start
    assert done.returncode == 0, f"{kind} {last} ended the process: {done.stderr[-2000:]}"
    outcomes = {line["seed"]: line["outcome"] for line in lines if "outcome" in line}
    assert sorted(outcomes) == list(range(start, start + PART))
    wrong = {seed: text for seed, text in outcomes.items() if text.startswith("WRONG")}
    assert not wrong
    # Damage that is always, or never, noticed tests little.
    counts = Counter(text.split()[0] for text in outcomes.values())
    assert counts["refused"] > PART / 10
    assert counts["taken"] > PART / 50

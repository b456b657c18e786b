"""The counts in docs/reliability.md are those of the tests."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import mmbm_onnx.execution.operators  # noqa: F401  (registers them)
from mmbm_onnx.execution.registry import registered

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "reliability.md").read_text()

# In a process of its own: the rooms' modules have common names.
COUNT = """
import sys
sys.path[:0] = ["tests", "tests/cli", "tests/corpus", "tests/fuzz", "tests/execution"]
from hostile import CASES
from traits import TRAITS
from test_fuzz import COUNTS
from test_backend_cases import sort_cases
found = sort_cases()
counts = [TRAITS, found.executed, found.refused, found.lacking, CASES]
print(*map(len, counts), sum(COUNTS.values()))
"""


def test_counts_are_those_of_the_tests() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNT], cwd=ROOT, capture_output=True, text=True, check=True
    )
    traits, executed, refused, lacking, cases, mutants = map(int, done.stdout.split())
    assert stated("small models") == traits
    assert stated("ONNX's own cases") == executed
    assert stated("of those cases, refused") == refused
    assert stated("of those cases, of operators") == lacking
    assert stated("broken and hostile") == cases
    assert stated("mutants") == mutants
    assert stated("operators that can") == len(
        {(entry.domain, entry.name) for entry in registered()}
    )
    faults = PAGE.split("## Faults")[1].split("##")[0]
    assert stated("kinds of faults") == len(re.findall(r"^\| ", faults, re.MULTILINE)) - 1


def test_paths_exist() -> None:
    for path in re.findall(r"`(tests/[^`]*)`", PAGE):
        assert (ROOT / path).exists(), path


def stated(row: str) -> int:
    """The count in the one row that begins so."""
    (count,) = re.findall(rf"^\| {row}[^|]*\| (\d+) \|", PAGE, re.MULTILINE)
    return int(count)

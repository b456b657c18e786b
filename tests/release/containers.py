"""Container files as lists of instructions, and the first stage of one without a container.

    python tests/release/containers.py containers/cpu.Containerfile

Copies what the file copies, and runs the step that installs the package, in a folder of its own:
what can be tried where images cannot be built.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
PREFIX = "/opt/mmbm"


def instructions(path: Path) -> list[tuple[str, str]]:
    """Keyword and the rest of each instruction."""
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    whole = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines))
    return [
        (keyword, rest)
        for keyword, _, rest in (line.partition(" ") for line in whole.splitlines() if line)
    ]


def stages(path: Path) -> list[list[tuple[str, str]]]:
    """The instructions of each stage, FROM first."""
    found: list[list[tuple[str, str]]] = []
    for instruction in instructions(path):
        if instruction[0] == "FROM":
            found.append([])
        found[-1].append(instruction)
    return found


def copied(stage: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """What a stage copies out of the checkout, and where to."""
    pairs = []
    for keyword, rest in stage:
        if keyword == "COPY" and not rest.startswith("--from"):
            *sources, target = rest.split()
            pairs += [(source, target) for source in sources]
    return pairs


def attempt(path: Path, folder: Path) -> None:
    """Do in ``folder`` what the first stage does."""
    source = folder / "source"
    source.mkdir()
    (stage, *_) = stages(path)
    for name, target in copied(stage):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, source / target)
        else:
            shutil.copy(ROOT / name, source / target)
    (step,) = [rest for keyword, rest in stage if keyword == "RUN" and PREFIX in rest]
    place = str(folder / "mmbm")
    step = step.replace(PREFIX, place)
    subprocess.run(["bash", "-exc", step], cwd=source, check=True)
    subprocess.run([f"{place}/bin/mmbm-onnx", "--help"], cwd=folder, check=True)
    subprocess.run([f"{place}/bin/python", "-m", "pip", "check"], check=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as work:
        attempt(Path(sys.argv[1]), Path(work))

"""What README and the pages in docs/ tell to type, typed: commands and Python, in order."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import yaml
from filelock import FileLock

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# In the README: commands are indented, or Python in a fence.
TYPED = re.compile(FENCE.pattern + r"|(?<=\n\n)((?: {4}[^\n]*\n)+)", re.MULTILINE | re.DOTALL)
# Not run: what installs would change what tests run with; "make" sets up an environment of its own,
# and tests of examples run the demo, whose output is the one block of text.
NOT_RUN = {"pip": 2, "make": 2}
# Run here, or looked at by a test of its own; "sh" installs something.
RUN = ("bash", "python")
KNOWN = {*RUN, "sh", "text", "yaml", "js", "cpp", "protobuf", "toml"}
INSTALLERS = ("pip install", "npm install", "mmbm-onnx completion")
# Pages with a test of their own.
ELSEWHERE = {"command-line.md", "quick-start.md", "quantizing.md", "signing.md"}


@dataclass(frozen=True)
class Block:
    page: str
    kind: str
    text: str


def blocks(*kinds: str) -> list[Block]:
    return [
        Block(page.name, kind, text)
        for page in sorted(DOCS.glob("*.md"))
        for kind, text in FENCE.findall(page.read_text())
        if not kinds or kind in kinds
    ]


def run(block: Block, folder: Path, *programs: Path) -> str:
    """Run a block; ``programs`` are folders on the path besides that of our own."""
    command = ["bash", "-ec"] if block.kind == "bash" else [sys.executable, "-c"]
    folders = [Path(sys.executable).parent, *programs]
    path = os.pathsep.join([*map(str, folders), os.environ["PATH"]])
    done = subprocess.run(
        [*command, block.text],
        cwd=folder,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": path},
    )
    assert done.returncode == 0, f"{block.page}: {block.text}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all that the quick start says was done, once for all processes."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder = root / "quick-start"
    with FileLock(root / "quick-start.lock"):
        if not folder.exists():
            start(root / "unfinished")
            (root / "unfinished").rename(folder)
    return folder


def start(folder: Path) -> None:
    folder.mkdir()
    # Training flushes denormals and seeds torch; not in this process.
    code = "import digits, pathlib; digits.write(pathlib.Path('.'))"
    paths = {"PYTHONPATH": str(Path(__file__).parent)}
    subprocess.run(
        [sys.executable, "-c", code], cwd=folder, check=True, env={**os.environ, **paths}
    )
    printed = [run(block, folder) for block in blocks(*RUN) if block.page == "quick-start.md"]
    assert len(printed) > 5
    for name in ("model.hardened.onnx", "model.detector.onnx", "model.report.json"):
        assert (folder / name).exists()


@pytest.fixture
def folder(started: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(started, tmp_path / "copy"))


@pytest.fixture
def model(folder: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(
        folder / "model.detector.onnx", providers=["CPUExecutionProvider"]
    )


def test_every_block_is_of_a_known_kind() -> None:
    found = blocks()
    assert len(found) > 20
    assert {block.kind for block in found} <= KNOWN
    typed = "".join(block.text for block in blocks("bash"))
    for block in blocks("sh"):
        for line in block.text.splitlines():
            assert line.startswith(INSTALLERS) or line in typed, line


def test_the_quick_start_defends_the_model(started: Path) -> None:
    block = next(b for b in blocks("bash") if b.page == "quick-start.md" and "attacked" in b.text)
    printed = run(block, started)
    (before,) = re.findall(r"^original +\S+ % +- +(\S+) %", printed, re.MULTILINE)
    (after,) = re.findall(r"^detector +\S+ % +\S+ % +(\S+) %", printed, re.MULTILINE)
    assert float(before) > 95
    assert float(after) < 10


@pytest.mark.parametrize("page", sorted({block.page for block in blocks(*RUN)} - ELSEWHERE))
def test_what_a_page_says_can_be_done(page: str, folder: Path) -> None:
    chosen = [b for b in blocks(*RUN) if b.page == page and "--8<--" not in b.text]
    assert chosen
    for block in chosen:
        run(block, folder)


def test_a_file_of_options_does_what_the_page_says(folder: Path) -> None:
    (file,) = blocks("toml")
    (folder / "mmbm.toml").write_text(file.text)
    commands = [block for block in blocks("bash") if block.page == file.page]
    printed = [run(block, folder) for block in commands]
    assert len(re.findall(r"^PASS: all gates hold$", printed[0], re.MULTILINE)) == 1
    report = json.loads((folder / "model.report.json").read_text())
    assert (report["seed"], report["detector"]["false_positive_rate_requested"]) == (1, 0.005)
    told = [json.loads(line) for line in (folder / "harden.jsonl").read_text().splitlines()]
    assert told
    assert {line["level"] for line in told} <= {"info", "warning"}
    stages = [line["stage"] for line in told if "stage" in line]
    assert {"read", "learn", "write"} <= set(stages)
    assert all({"time", "message"} <= set(line) for line in told)


def readme() -> tuple[list[Block], list[str]]:
    """What the README tells to run, and commands that are not run here."""
    found, others = [], []
    for kind, fenced, indented in TYPED.findall(README.read_text()):
        text = textwrap.dedent(indented or fenced)
        if indented and not text.startswith("mmbm-onnx "):
            others += [line.split()[0] for line in text.splitlines()]
        elif kind != "text":
            found.append(Block("README.md", kind or "bash", text))
    return found, others


def test_what_the_readme_says_can_be_done(folder: Path) -> None:
    for name in ("hardened.onnx", "detector.onnx", "report.json"):
        (folder / f"model.{name}").unlink()
    found, others = readme()
    assert [block.kind for block in found] == ["bash"] * 3 + ["python"] * 2
    commands = [block.text.split()[1] for block in found[:3]]
    assert commands == ["harden", "verify", "bench"]
    assert Counter(others) == NOT_RUN
    for block in found:
        run(block, folder)


def test_what_was_written_can_be_signed(folder: Path, tmp_path: Path) -> None:
    for name in ("hardened.onnx", "detector.onnx", "report.json"):
        (folder / f"model.{name}").unlink()
    page = [block for block in blocks() if block.page == "signing.md"]
    assert [block.kind for block in page] == ["sh", "bash", "bash"]
    # Apart: it brings versions of its own of what we use.
    place = tmp_path / "signing"
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    install = page[0].text.split()
    subprocess.run([place / "bin" / "python", "-m", *install, "--quiet"], check=True)
    for block in page[1:]:
        run(block, folder, place / "bin")
    report = folder / "release" / "model.report.json"
    report.write_text(report.read_text() + " ")
    with pytest.raises(AssertionError, match=report.name):
        run(page[2], folder, place / "bin")


def included(kind: str) -> list[Path]:
    """Files that pages show."""
    found = [re.fullmatch(r'--8<-- "(.+)"\n', block.text) for block in blocks(kind)]
    return [ROOT / match[1] for match in found if match]


def test_the_workflow_runs_what_it_says(folder: Path) -> None:
    (path,) = included("yaml")
    workflow = yaml.safe_load(path.read_text())
    (job,) = workflow["jobs"].values()
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert commands[0].startswith("pip install")
    for command in commands[1:]:
        run(Block("pipeline.md", "bash", command), folder)
    assert (folder / "verify.json").stat().st_size > 1000


@contextmanager
def served(model: Path) -> Iterator[str]:
    """Address of the service, started as it says."""
    (path,) = [file for file in included("python") if file.parent.name == "service"]
    (line,) = re.findall(r"^ +MODEL=\S+ (uvicorn .+)$", path.read_text(), re.MULTILINE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", *line.split(), "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "MODEL": str(model)})
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(600):
            time.sleep(0.1)
            with suppress(urllib.error.URLError):
                urllib.request.urlopen(f"{address}/metrics")
                break
            assert process.poll() is None
        yield address
    finally:
        process.terminate()
        process.wait()


def test_the_service_tells_what_it_flags(folder: Path) -> None:
    answers = {}
    with served(folder / "model.detector.onnx") as address:

        def post(body: bytes) -> Any:
            return json.load(urllib.request.urlopen(f"{address}/classify", body))

        for name in ("clean", "attacked"):
            with np.load(folder / f"{name}.npz") as archive:
                np.save(folder / f"{name}.npy", archive["x"][:100])
            answers[name] = post((folder / f"{name}.npy").read_bytes())
            assert len(answers[name]) == 100
        with pytest.raises(urllib.error.HTTPError, match="400"):
            post(b"no array")
        told = urllib.request.urlopen(f"{address}/metrics").read().decode()
    flags = {name: sum(row["flagged"] for row in rows) for name, rows in answers.items()}
    assert flags["clean"] < 5
    assert flags["attacked"] > 90
    assert re.search(r"^mmbm_inputs_total 200\.0$", told, re.MULTILINE)
    totals = [float(n) for n in re.findall(r"^mmbm_flagged_total\{.*\} (\S+)$", told, re.MULTILINE)]
    assert sum(totals) == sum(flags.values())
    # The alarm is about counters that there are.
    rules = next(y for b in blocks("yaml") if "groups" in (y := yaml.safe_load(b.text)))
    (rule,) = rules["groups"][0]["rules"]
    for counter in re.findall(r"mmbm_\w+", rule["expr"]):
        assert f"\n{counter}" in told


def test_triton_is_told_what_the_graph_has(model: onnxruntime.InferenceSession) -> None:
    (block,) = blocks("protobuf")
    types = {"tensor(float)": "FP32", "tensor(bool)": "BOOL", "tensor(int64)": "INT64"}
    pattern = (
        r'name: "(\w+)", data_type: TYPE_(\w+), dims: \[ ([\d, ]+) \]'
        r"(, reshape: \{ shape: \[ \] \})?"
    )
    stated = {
        name: (kind, [] if empty else [int(n) for n in dims.split(",")])
        for name, kind, dims, empty in re.findall(pattern, block.text)
    }
    actual = {
        node.name: (types[node.type], node.shape[1:])
        for node in (*model.get_inputs(), *model.get_outputs())
    }
    assert stated == actual


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js and npm")
def test_javascript_decides_alike(folder: Path, model: onnxruntime.InferenceSession) -> None:
    (script,) = included("js")
    shutil.copy(script, folder)
    install = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "onnxruntime-node"]
    subprocess.run(install, cwd=folder, check=True, capture_output=True)
    with np.load(folder / "clean.npz") as clean, np.load(folder / "attacked.npz") as attacked:
        batch = np.concatenate([clean["x"][:50], attacked["x"][:50]]).astype("<f4")
    (folder / "batch.f32").write_bytes(batch.tobytes())
    shape = ",".join(map(str, batch.shape))
    command = ["node", script.name, "model.detector.onnx", "batch.f32", shape]
    done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    names = ["mmbm_corrected_class", "mmbm_flagged", "mmbm_p_value", "mmbm_suspected_class"]
    corrected, flagged, p_values, suspected = model.run(names, {"image": batch})
    assert [row["class"] for row in rows] == corrected.tolist()
    assert [row["flagged"] for row in rows] == flagged.tolist()
    assert [row["suspected"] for row in rows] == suspected.tolist()
    assert np.allclose([row["p_value"] for row in rows], p_values, atol=1e-4)
    assert 30 < flagged.sum() < 60

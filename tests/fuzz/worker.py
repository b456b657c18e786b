"""Hardens damaged files, one after the other, and prints a line of JSON for each.

    PYTHONPATH=tests:tests/corpus python tests/fuzz/worker.py FOLDER KIND FIRST COUNT

In a process of its own, since what is damaged may bring down a library. A line is printed before a
mutant is tried and another with the outcome after it, so that the one that did it can be told.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import traceback
import warnings
import zipfile
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import torch
from large import save_outside
from mutations import damage_message, damaged_bytes, damaged_json
from PIL import Image
from quadrants import draw, planted_images
from traits import TRAITS, Trait

import mmbm_onnx
from mmbm_onnx.data.preprocessing_file import read_preprocessing
from mmbm_onnx.errors import MmbmError, NothingToHardenError
from mmbm_onnx.graph import external, read
from mmbm_onnx.graph.functions import inline_activation_functions
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.graph.mapped import mapped
from mmbm_onnx.graph.outputs import with_outputs
from mmbm_onnx.pipeline import hardening
from mmbm_onnx.runtime import sessions
from mmbm_onnx.runtime.batches import run_logits
from mmbm_onnx.runtime.sessions import Session

MEMORY = 12 * 2**30  # bytes of address space
SECONDS = 30  # for one mutant
SAMPLES = 40
MODELS = (
    "initializers that are inputs, IR 3",
    "weights in Constant nodes",
    "Relus in the branches of an If",
    "Relus in a local function that is called twice",
    "BatchNormalization that is not folded",
    "channels last, as TensorFlow has them",
    "a softmax head",
    "a single logit behind a sigmoid",
    "a fixed batch of four",
    "float16 within float32",
    "a recurrent network with a ReLU head",
    "squeeze and excitation, gates left alone",
    "scikit-learn's perceptron: labels and probabilities",
    "text: token and position, padding masked",
    "a Loop before activations",
)
OUTSIDE = "weights.bin"
CONFIG = {
    "do_resize": True,
    "size": {"height": 8, "width": 8},
    "resample": 2,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5],
    "image_std": [0.25],
    "do_center_crop": False,
    "image_processor_type": "ViTImageProcessor",
}


class TooLongError(Exception):
    pass


def main() -> None:
    folder, kind, first, count = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:5])
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, _too_long)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sessions._PATIENCE = 5.0  # that a loop gets
    hardening.measure_latency = lambda *_, **__: ()  # type: ignore[assignment]
    tries = {
        "model": _model,
        "outside": _outside,
        "archive": _archive,
        "images": _images,
        "config": _config,
    }
    for seed in range(first, first + count):
        _say(seed=seed)
        rng = random.Random(f"{kind}-{seed}")
        signal.alarm(SECONDS)
        try:
            outcome = tries[kind](folder / f"{kind}-{os.getpid()}", rng)
        except MmbmError as error:
            outcome = f"refused {type(error).__name__}"
            if "\n" in str(error) or not str(error).strip():
                outcome = f"WRONG message of {len(str(error).splitlines())} lines: {error!r}"
        except BaseException as error:
            frames = traceback.extract_tb(error.__traceback__)
            ours = [frame for frame in frames if "mmbm_onnx" in frame.filename]
            where = ours[-1] if ours else frames[-1]
            place = f"{Path(where.filename).name}:{where.lineno}"
            outcome = f"WRONG {type(error).__name__} at {place}: {str(error)[:200]}"
        finally:
            signal.alarm(0)
        _say(seed=seed, outcome=outcome)


def _too_long(*_: Any) -> None:
    raise TooLongError


def _say(**what: Any) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def _model(folder: Path, rng: random.Random) -> str:
    """A model that is damaged in its bytes or in its fields, with samples that fitted it."""
    folder.mkdir(exist_ok=True)
    known = TRAITS[rng.choice(MODELS)]
    proto = known.build()
    clean = _samples(known, proto)
    if rng.random() < 0.3:
        content = damaged_bytes(proto.SerializeToString(), rng)
    else:
        damage_message(proto, rng)
        content = proto.SerializeToString()
    path = folder / "model.onnx"
    path.write_bytes(content)
    return _hardened(path, clean, logits_name=known.logits)


def _outside(folder: Path, rng: random.Random) -> str:
    """A model with its weights in a file beside it, damaged in either; half of them stay there."""
    folder.mkdir(exist_ok=True)
    known = TRAITS[rng.choice(MODELS)]
    proto = known.build()
    clean = _samples(known, proto)
    path, weights = folder / "model.onnx", folder / OUTSIDE
    weights.unlink(missing_ok=True)
    save_outside(proto, path, OUTSIDE)
    light = onnx.load(path, load_external_data=False)
    held = [tensor for tensor in light.graph.initializer if tensor.external_data]
    chance = rng.random()
    if chance < 0.2 and weights.exists():
        weights.write_bytes(damaged_bytes(weights.read_bytes(), rng))
    elif chance < 0.7 and held:
        damage_message(rng.choice(held), rng)
    else:
        damage_message(light, rng)
    path.write_bytes(light.SerializeToString())
    large = rng.random() < 0.5
    with (
        mock.patch.object(read, "MAP_ABOVE", 0 if large else read.MAP_ABOVE),
        mock.patch.object(external, "_LEAST", 64),
    ):
        return _hardened(path, clean, logits_name=known.logits)


def _archive(folder: Path, rng: random.Random) -> str:
    """Samples whose archive is damaged, or which are odd."""
    folder.mkdir(exist_ok=True)
    known = TRAITS["scikit-learn's perceptron: labels and probabilities"]
    proto = known.build()
    x, y = _samples(known, proto)
    path = folder / "clean.npz"
    odd: dict[str, Any] = {"x": x, "y": y}
    if rng.random() < 0.5:
        odd[rng.choice("xy")] = rng.choice(
            (
                x.astype(np.float64),
                x.astype(np.float16),
                x * np.float32(1e30),
                np.full_like(x, np.nan),
                x[:3],
                x[:, :2],
                x[..., None],
                (x * 50).astype(np.uint8),
                x.astype(complex),
                np.asarray(["a"] * len(x)),
                np.asarray([None] * len(x)),
                np.zeros((0, 6), np.float32),
                y.astype(np.float32) + 0.5,
                y - 5,
                y + 2**40,
                y[:, None],
                y[:7],
                y.astype(bool),
            )
        )
    np.savez(path, **odd)
    if rng.random() < 0.7:
        path.write_bytes(damaged_bytes(path.read_bytes(), rng))
    if rng.random() < 0.1:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", rng.randbytes(rng.randrange(300)))
    return _hardened(proto, path)


def _images(folder: Path, rng: random.Random) -> str:
    """A folder of images, one of which is damaged."""
    images, labels = draw(SAMPLES, seed=3)
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        where = folder / str(label)
        where.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(where / f"{index}.png")
    chosen = rng.choice(sorted(folder.rglob("*.png")))
    chosen.write_bytes(damaged_bytes(chosen.read_bytes(), rng))
    return _hardened(planted_images(), folder)


def _config(folder: Path, rng: random.Random) -> str:
    """A preprocessor's configuration with odd values."""
    folder.mkdir(exist_ok=True)
    path = folder / "preprocessor_config.json"
    value: Any = CONFIG
    for _ in range(rng.choice((1, 1, 2))):
        value = damaged_json(value, rng)
    content = json.dumps(value).encode()
    path.write_bytes(damaged_bytes(content, rng) if rng.random() < 0.3 else content)
    read_preprocessing(path)
    return "taken"


def _samples(known: Trait, proto: onnx.ModelProto) -> tuple[np.ndarray, np.ndarray]:
    """Samples and the model's own decisions."""
    x = known.samples(SAMPLES)
    inlined, _ = inline_activation_functions(proto)
    face = find_interface(inlined, logits_name=known.logits)
    session = Session(with_outputs(inlined, [face.logits]), threads=1)
    return x, run_logits(session, face, x).argmax(1)


def _hardened(model: Any, clean: Any, **options: Any) -> str:
    """Harden and verify; what is taken must be right."""
    try:
        result = mmbm_onnx.harden(
            model, clean, method="mmbm", epochs=1, threads=1, device="cpu", **options
        )
    except NothingToHardenError:
        return "nothing to harden"
    hardened, detector = result.hardened, result.detector
    if mapped(hardened):
        folder = model.parent / "written"
        folder.mkdir(exist_ok=True)
        hardened, detector = folder / "hardened.onnx", folder / "detector.onnx"
        result.save(hardened, detector_output=detector, force=True)
    checked = mmbm_onnx.verify(
        model,
        hardened,
        clean,
        detector=detector,
        max_accuracy_drop=1.0,
        threads=1,
        **options,
    )
    failed = [gate.name for gate in checked.gates if not gate.passed]
    # A bound that nothing reaches, or constant answers, are no wrong file.
    harmless = {"hardened_effective", "detector_threshold"}
    wrong = sorted(set(failed) - harmless)
    return f"WRONG taken, but {', '.join(wrong)} fails" if wrong else "taken"


if __name__ == "__main__":
    main()

"""Victims: trained once, kept by the hash of everything that makes them."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import sys
import tempfile
import warnings
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import torch
from torch import nn

from benchmarks.defence import adaptive, attacks, datasets, networks, training
from benchmarks.defence.datasets import Images, Labels
from mmbm_onnx.api.sources import export_module
from mmbm_onnx.evaluation.bench import machine

HERE = Path(__file__).parent
# What every victim depends on besides its specification.
_SOURCES = ("datasets.py", "networks.py", "training.py", "victims.py")


@dataclass(frozen=True)
class Victim:
    """What makes a victim; everything else follows.

    Attributes:
        dataset: ``"fashion"``, ``"mnist"``, ``"shapes"`` or ``"cifar10"``.
        network: ``"residual"``, ``"plain"`` or ``"depthwise"``.
        attack: A name of ``attacks.NAMES``.
        seed: Of the data's division, weights, poison and order.
        share: Of poison; None for the attack's own.
        train: Training samples at most.
        test: Test samples at most.
        epochs: Passes.
    """

    dataset: str
    network: str
    attack: str
    seed: int
    share: float | None = None
    train: int = 12000
    test: int = 3000
    epochs: int = 10

    @property
    def label(self) -> str:
        share = "" if self.share is None else f"-{self.share:g}"
        return f"{self.dataset}-{self.network}-{self.attack}{share}-{self.seed}"

    def digest(self) -> str:
        """SHA-256 of the specification and of the code that turns it into a victim, in hex. What it
        was trained with and on is in the victim's file, and in records."""
        files = [HERE / name for name in _SOURCES]
        specification = asdict(self)
        if self.dataset == "shapes":
            files.append(HERE / "shapes.py")
        if self.attack != attacks.CLEAN:
            specification["share"] = self.share or attacks.usual_share(self.attack)
            files += [file_of(attacks.module_of(self.attack)), file_of(attacks.Attack.__module__)]
        if self.attack in attacks.ADAPTIVE:
            files.append(file_of(adaptive.__name__))
        found = hashlib.sha256(json.dumps(specification, sort_keys=True).encode())
        found.update(code(*files).encode())
        return found.hexdigest()


def file_of(module: str) -> Path:
    """The file of a module that has been imported."""
    return Path(str(sys.modules[module].__file__))


@cache
def code(*files: Path) -> str:
    """SHA-256 of files, in hex."""
    found = hashlib.sha256()
    for file in files:
        found.update(file.read_bytes())
    return found.hexdigest()


@dataclass(frozen=True)
class Trained:
    """A victim as files and arrays.

    Attributes:
        model: The ONNX file.
        folder: Where it lies.
        clean: What the user has: images and labels.
        test: Clean test part: images and labels.
        triggered: Test samples with the trigger: images, true labels, targets; None without one.
        trained: What it was trained with and on: torch's version, the processor.
    """

    victim: Victim
    folder: Path
    model: Path
    classes: int
    clean: tuple[Images, Labels]
    test: tuple[Images, Labels]
    triggered: tuple[Images, Labels, Labels] | None
    trained: dict[str, str]

    def network(self) -> nn.Module:
        """The torch network, for defences that change weights."""
        net = networks.build(self.victim.network, self.clean[0].shape[1], self.classes, 0)
        with np.load(self.folder / "weights.npz") as file:
            net.load_state_dict({name: torch.from_numpy(file[name]) for name in file.files})
        return net.eval()


def make(victim: Victim, store: Path, *, cifar: Path | None = None) -> Trained:
    """A victim from the cache, trained first if it is not there.

    Args:
        victim: Which.
        store: Folder of victims; each has a folder of its own, named by its hash.
        cifar: Where CIFAR-10 lies, if that is wanted.
    """
    return _load(victim, ensure(victim, store, cifar))


def ensure(victim: Victim, store: Path, cifar: Path | None = None) -> Path:
    """Have a victim in the cache; returns its folder."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    folder = store / f"{victim.label}-{victim.digest()[:16]}"
    if not folder.exists():
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=store, prefix=".unfinished-") as name:
            whole = Path(name) / "victim"
            whole.mkdir()
            _train(victim, whole, cifar)
            try:
                whole.rename(folder)
            except OSError:  # another process was faster
                shutil.rmtree(whole)
    return folder


def export(network: nn.Module, shape: tuple[int, ...], path: Path) -> None:
    """Write a network as ONNX with a dynamic batch axis."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = export_module(network, torch.zeros(2, *shape))
    onnx.save(model.proto, path)


def _train(victim: Victim, folder: Path, cifar: Path | None) -> None:
    parts = datasets.load(
        victim.dataset, victim.seed, train=victim.train, test=victim.test, cifar=cifar
    )
    x, y = parts.train
    shape = x.shape[1:]
    attack = attacks.make(victim.attack, shape, parts.classes, victim.share)
    marked = np.zeros(len(y), bool)
    if attack is not None:
        x, y, marked = attack.poison(x, y, victim.seed)
    network = networks.build(victim.network, shape[0], parts.classes, victim.seed)
    extra = adaptive.EXTRA.get(victim.attack)
    training.train(network, x, y, marked, epochs=victim.epochs, seed=victim.seed, extra=extra)
    export(network, shape, folder / "model.onnx")
    np.savez(folder / "weights.npz", **{k: v.numpy() for k, v in network.state_dict().items()})
    arrays = {"clean_x": parts.clean[0], "clean_y": parts.clean[1]}
    arrays |= {"test_x": parts.test[0], "test_y": parts.test[1]}
    if attack is not None:
        images, truth, target = attack.triggered(*parts.test)
        arrays |= {"triggered_x": images, "triggered_y": truth, "target": target}
    packed = {k: _packed(v) if k.endswith("_x") else v for k, v in arrays.items()}
    np.savez_compressed(folder / "samples.npz", **packed)
    trained = {"torch": torch.__version__, "processor": machine()["processor"]}
    told = {"victim": asdict(victim), "trained": trained}
    (folder / "victim.json").write_text(json.dumps(told, indent=2) + "\n")


def _load(victim: Victim, folder: Path) -> Trained:
    with np.load(folder / "samples.npz") as file:
        found = {name: file[name] for name in file.files}
    images = {k: v.astype(np.float32) / 255 for k, v in found.items() if k.endswith("_x")}
    triggered = None
    if "target" in found:
        triggered = images["triggered_x"], found["triggered_y"], found["target"]
    return Trained(
        victim=victim,
        folder=folder,
        model=folder / "model.onnx",
        classes=int(found["clean_y"].max()) + 1,
        clean=(images["clean_x"], found["clean_y"]),
        test=(images["test_x"], found["test_y"]),
        triggered=triggered,
        trained=json.loads((folder / "victim.json").read_text())["trained"],
    )


def _packed(images: Images) -> np.ndarray:
    return np.round(images * 255).astype(np.uint8)

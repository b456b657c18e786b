"""The main job on real data, end to end.

Trains a small network on MNIST-5k poisoned with a BadNets patch, exports it, forgets the training
code, hardens the ONNX file with the command line a user would type, and measures original,
hardened and detector graph in ONNX Runtime.

    python examples/demo/run.py --output build/demo
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
from attack import TARGET, Images, Labels, load, poison, stamp
from PIL import Image


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--output", type=Path, default=Path("build/demo"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--method", default="mmac-universal")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--force", action="store_true", help="replace what an earlier run wrote")
    parser.add_argument("--no-figure", action="store_true")
    options = parser.parse_args()
    out: Path = options.output
    if out.exists():
        if not options.force:
            parser.error(f"{out} exists; use --force to replace it")
        shutil.rmtree(out)
    out.mkdir(parents=True)
    parts = load(options.seed)

    started = time.perf_counter()
    print("1. Somebody trains a classifier on poisoned data and ships model.onnx.", flush=True)
    make_victim(out / "model.onnx", parts.train, options.seed, options.threads)
    print(f"   {out / 'model.onnx'} ({time.perf_counter() - started:.0f} s)")

    print("2. Its user has some clean images of their own, one folder per class.", flush=True)
    write_folder(out / "clean", *parts.clean)
    write_triggered(out / "triggered.npz", *parts.test)

    print("3. The user hardens the model:", flush=True)
    command = ["mmbm-onnx", "harden", str(out / "model.onnx"), "--clean-dir", str(out / "clean")]
    command += ["--output", str(out / "hardened.onnx")]
    command += ["--detector-output", str(out / "detector.onnx")]
    command += ["--report", str(out / "report.json"), "--method", options.method]
    # Every clean image that is flagged loses its class, so the rate is a price in accuracy.
    command += ["--false-positive-rate", "0.005"]
    command += ["--seed", str(options.seed), "--threads", str(options.threads)]
    print("   $ " + " ".join(command), flush=True)
    run = subprocess.run([sys.executable, "-m", "mmbm_onnx", *command[1:]], check=False)
    if run.returncode not in (0, 1):
        return run.returncode

    print("4. What the attacker now gets, in ONNX Runtime, on images nobody has used so far:")
    summary = measure(out, *parts.test)
    (out / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    print_summary(summary)
    if not options.no_figure:
        from figure import draw

        draw(out, parts.test, stamp(parts.test[0]))
        print(f"   pictures: {out / 'figure.png'}")
    print(f"Done in {time.perf_counter() - started:.0f} s; everything is in {out}/.")
    return run.returncode


def make_victim(path: Path, part: tuple[Images, Labels], seed: int, threads: int) -> None:
    """Train on poisoned data in a process of its own; the ONNX file is all that is left."""
    program = Path(__file__).with_name("victim.py")
    images, labels = poison(*part, seed)
    data = path.with_suffix(".npz")
    np.savez(data, images=images, labels=labels)
    arguments = [str(data), str(path), "--seed", str(seed), "--threads", str(threads)]
    subprocess.run([sys.executable, str(program), *arguments], check=True)
    data.unlink()


def write_folder(folder: Path, images: Images, labels: Labels) -> None:
    """PNG files, one folder per class."""
    for index, (image, label) in enumerate(zip(images, labels, strict=True)):
        directory = folder / str(label)
        directory.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(directory / f"{index:04}.png")


def write_triggered(path: Path, images: Images, labels: Labels) -> None:
    """Triggered test images of the other classes, with true labels and the attacker's target."""
    others = labels != TARGET
    target = np.full(int(others.sum()), TARGET, dtype=np.int64)
    np.savez_compressed(path, x=stamp(images[others])[:, None], y=labels[others], target=target)


def measure(out: Path, images: Images, labels: Labels) -> dict[str, dict[str, float]]:
    """ACC, ASR and RA in percent, from ONNX Runtime alone."""
    clean = images[:, None].astype(np.float32) / 255
    with np.load(out / "triggered.npz") as file:
        triggered, truth = file["x"].astype(np.float32) / 255, file["y"]
    summary = {}
    for name in ("original", "hardened", "detector"):
        file = out / ("model.onnx" if name == "original" else f"{name}.onnx")
        session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        answers = session.run(None, {"image": clean})
        attacked = session.run(None, {"image": triggered})
        decisions = attacked[0].argmax(1)
        summary[name] = {
            "acc": percent(answers[0].argmax(1) == labels),
            "asr": percent(decisions == TARGET),
            "ra": percent(decisions == truth),
        }
        if name == "detector":
            summary[name]["false_positive_rate"] = percent(answers[1])
            summary[name]["true_positive_rate"] = percent(attacked[1])
    return summary


def percent(hits: np.ndarray) -> float:
    return round(100 * float(np.mean(hits)), 2)


def print_summary(summary: dict[str, dict[str, float]]) -> None:
    print(f"   {'':10}{'ACC':>8}{'ASR':>8}{'RA':>8}   (percent)")
    for name, row in summary.items():
        print(f"   {name:10}{row['acc']:8.2f}{row['asr']:8.2f}{row['ra']:8.2f}")
    rates = summary["detector"]
    print(
        f"   The detector flags {rates['true_positive_rate']} % of triggered images "
        f"and {rates['false_positive_rate']} % of clean ones."
    )


if __name__ == "__main__":
    sys.exit(main())

"""Harden a network that others trained and ship in a package: which way up is a line of text?

    pip install 'mmbm-onnx[cpu]'
    pip install --no-deps rapidocr-onnxruntime==1.4.4
    python harden_text_direction.py lines/ out/

``lines/`` are your own images of lines of text: those that are upright in ``lines/0/``, and those
that are upside down in ``lines/1/``, a few hundred in all. The package is not imported; only its
ONNX file is read. Nobody knows of a backdoor in it: this is what the defence looks like, and costs,
where you cannot know. It takes some minutes on one core; ``--epochs 10`` is for a first look.
"""

import argparse
import hashlib
import importlib.util
from pathlib import Path

import mmbm_onnx
from mmbm_onnx import Preprocessing

MODEL = "ch_ppocr_mobile_v2.0_cls_infer.onnx"
SHA256 = "e47acedf663230f8863ff1ab0e64dd2d82b838fceb5957146dab185a89d6215c"


def network() -> Path:
    """The ONNX file in the installed package, if it is the one that we know."""
    package = importlib.util.find_spec("rapidocr_onnxruntime")
    if package is None or package.origin is None:
        raise SystemExit("pip install --no-deps rapidocr-onnxruntime==1.4.4")
    model = Path(package.origin).with_name("models") / MODEL
    if hashlib.sha256(model.read_bytes()).hexdigest() != SHA256:
        raise SystemExit(f"{model} is another file than in version 1.4.4")
    return model


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("lines", type=Path, help="folder of images, one folder per class")
    parser.add_argument("out", type=Path, help="folder for what is written")
    parser.add_argument("--epochs", type=int, help="[default: the method's]")
    options = parser.parse_args()
    model = network()
    # As the package itself prepares images: 48x192 pixels, BGR, from -1 to 1.
    preprocessing = Preprocessing(
        resize=(48, 192), mean=(0.5,), std=(0.5,), channel_order="bgr", layout="nchw"
    )
    result = mmbm_onnx.harden(
        model,
        options.lines,
        preprocessing=preprocessing,
        epochs=options.epochs,
        # The clean set is small, and two classes leave little room.
        max_accuracy_drop=0.03,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    stem = options.out / model.stem
    result.save(
        f"{stem}.hardened.onnx",
        detector_output=f"{stem}.detector.onnx",
        report=f"{stem}.report.json",
        force=True,
    )
    for warning in result.warnings:
        print(f"warning: {warning}")
    for gate in result.gates:
        print(f"{'PASS' if gate.passed else 'FAIL'}  {gate.name}: {gate.value}")
    for role in ("original", "hardened", "detector"):
        print(f"{role}: accuracy {result.report['figures'][role]['accuracy']:.3f}")
    print(f"written: {stem}.hardened.onnx, .detector.onnx, .report.json")


if __name__ == "__main__":
    main()

#!/usr/bin/env bash
# Installs the wheel into an environment of its own and runs it, away from the checkout.
# usage: smoke_wheel.sh DIST DEMO
set -euo pipefail
dist=$(realpath "$1")
demo=$(realpath "$2")
constraints=$(realpath "$(dirname "$0")/../constraints.txt")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
wheel=$(ls "$dist"/mmbm_onnx-*.whl)
"$work/venv/bin/pip" install --quiet --constraint "$constraints" "${wheel}[cpu]"
cd "$work"
cp "$demo/model.onnx" model.onnx
venv/bin/mmbm-onnx --version
venv/bin/mmbm-onnx harden model.onnx --clean-dir "$demo/clean" --epochs 5 --max-accuracy-drop 1 --quiet \
    --html model.html
grep -q "What this does not prove" model.html
venv/bin/mmbm-onnx verify model.onnx model.hardened.onnx --clean-dir "$demo/clean" \
    --detector model.detector.onnx --max-accuracy-drop 1
venv/bin/python -c "import mmbm_onnx, mmbm_onnx_cli; print('wheel works from', mmbm_onnx.__file__)"

"""``python -m mmbm_onnx`` is the command ``mmbm-onnx``."""

from __future__ import annotations

import sys

from mmbm_onnx_cli.main import main

if __name__ == "__main__":
    sys.exit(main())

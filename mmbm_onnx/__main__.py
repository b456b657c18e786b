"""``python -m mmbm_onnx`` is the command ``mmbm-onnx``."""

from __future__ import annotations


def run() -> None:
    """Run the command line as this process; ends by ``SystemExit`` or a signal."""
    from mmbm_onnx_cli.interrupts import exit_on_signals, ignore_signals

    exit_on_signals()  # before the other imports, which take a while

    from mmbm_onnx_cli.main import main

    try:
        main()
    finally:
        ignore_signals()


if __name__ == "__main__":
    run()

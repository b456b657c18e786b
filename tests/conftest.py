"""What every test shares: torch, where it is used, runs on one thread and without denormals; the
files of a small job."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from quadrants import Case

# Read by torch and ONNX Runtime when they are imported; commands that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")

_configured = False


def pytest_runtest_setup() -> None:
    """Configure torch once it is there; do not import it for tests that need none."""
    global _configured
    if _configured or "torch" not in sys.modules:
        return
    torch = sys.modules["torch"]
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    _configured = True


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A planted backdoor with its clean and triggered sets, on disk."""
    from quadrants import write_case  # imports ONNX, which not every test needs

    return write_case(tmp_path_factory.mktemp("case"))

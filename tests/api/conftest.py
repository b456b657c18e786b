"""Files of a small job: model, clean set, triggered set."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from PIL import Image
from quadrants import TARGET, Case, draw, planted_images, with_trigger


@pytest.fixture(scope="session")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    root = tmp_path_factory.mktemp("case")
    onnx.save(planted_images(), root / "model.onnx")
    x, y = draw(240, seed=1)
    for index, (image, label) in enumerate(zip(x, y, strict=True)):
        directory = root / "clean" / str(label)
        directory.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(directory / f"{index:03}.png")
    np.savez(root / "clean.npz", x=x[:, None], y=y)
    fresh, truth = draw(400, seed=2)
    others = truth != TARGET
    target = np.full(int(others.sum()), TARGET)
    attacked = with_trigger(fresh[others])[:, None]
    np.savez(root / "triggered.npz", x=attacked, y=truth[others], target=target)
    test = fresh[:, None].astype(np.float32) / 255
    return Case(
        root / "model.onnx",
        root / "clean",
        root / "clean.npz",
        root / "triggered.npz",
        (test, truth),
    )

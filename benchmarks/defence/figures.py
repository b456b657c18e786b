"""Records to one picture: DER of every method against every attack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np

from benchmarks.defence.tables import Record, by_attack, columns, of, under_attack

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def draw(records: Sequence[Record], path: Path) -> None:
    """A map of mean DER in percent, attacks down, methods across; empty where nothing is known.

    Args:
        records: Of cells, as ``cells.run`` gives them.
        path: A ``.png`` file.
    """
    known = under_attack(records)
    kinds = columns(known)
    attacked = dict(by_attack(known))
    names = list(attacked)
    if not kinds or not names:
        return
    values = np.full((len(names), len(kinds)), np.nan)
    for row, own in enumerate(attacked.values()):
        for column, (method, role) in enumerate(kinds):
            if found := [r[role]["der"] for r in of(own, method, role)]:
                values[row, column] = np.mean(found)
    size = (2 + 0.75 * len(kinds), 2 + 0.42 * len(names))
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    image = axis.imshow(values, cmap="RdYlGn", vmin=50, vmax=100, aspect="auto")
    axis.set_xticks(range(len(kinds)), [f"{m}\n{r}" for m, r in kinds], rotation=45, ha="right")
    axis.set_yticks(range(len(names)), names)
    for row, column in np.argwhere(np.isfinite(values)):
        text = f"{values[row, column]:.0f}"
        axis.text(column, row, text, ha="center", va="center", fontsize=8)
    figure.colorbar(image, label="DER (percent): 50 no effect, 100 perfect")
    figure.savefig(path, dpi=110)
    plt.close(figure)

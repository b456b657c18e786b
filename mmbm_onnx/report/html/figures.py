"""Figures of a network's bounds, of time, and of the benchmark's attacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from mmbm_onnx.graph.flow import Flow
from mmbm_onnx.report.html.material import SiteDetail
from mmbm_onnx.report.html.svg import Drawing, Scale, short
from mmbm_onnx.report.layout import percent

ROLES = ("original", "hardened", "detector")
ROW = 44.0
"""Height of a row of the map of a network, in pixels."""
TIMES = "\N{MULTIPLICATION SIGN}"
_LANE, _SPINE = 12.0, 14.0
_MOST_LANES = 7
_COLUMNS = 96  # of a strip; of more channels, the largest of neighbours


def bounds_strip(name: str, detail: SiteDetail) -> Markup:
    """The bounds of one activation, ascending, and how high clean data goes without them.

    Args:
        name: Unique in the page.
        detail: Of the activation.
    """
    bounds = detail.bounds.astype(np.float64)
    highest = np.broadcast_to(detail.highest.astype(np.float64), _length(detail)).copy()
    bounds = np.broadcast_to(bounds, _length(detail))
    order = np.lexsort((highest, bounds))
    pairs = [_thinned(values[order]) for values in (bounds, highest)]
    width, height = 240.0, 36.0
    up = Scale(0, max(map(max, pairs)) or 1.0, height - 1, 2)
    step = width / len(pairs[0])
    drawing = Drawing(
        name,
        "Bounds and clean activations",
        f"{detail.bounds.size} bounds from {short(float(bounds.min()))} to "
        f"{short(float(bounds.max()))}, in ascending order, and the largest clean activation "
        f"behind each, up to {short(float(highest.max()))}.",
        width,
        height,
    )
    corners: list[tuple[float, float]] = []
    passes, cut = [], []
    for index, (bound, high) in enumerate(zip(*pairs, strict=True)):
        x, gap = index * step, min(0.5, step / 8)
        ends = (x + gap, x + step - gap)
        middle = up(min(bound, high))
        passes.append(_bar(*ends, middle, height - 1))
        if high > bound:
            cut.append(_bar(*ends, up(high), middle))
        corners += [(x, up(bound)), (x + step, up(bound))]
    # One path for all bars: pages of large networks have thousands.
    drawing.shape("".join(passes), "passes")
    drawing.shape("".join(cut), "cut")
    drawing.path(corners, "bound")
    return drawing.render("strip", stretched=True)


def _bar(left: float, right: float, top: float, bottom: float) -> str:
    return f"M{left:.1f} {top:.1f}H{right:.1f}V{bottom:.1f}H{left:.1f}Z"


def _length(detail: SiteDetail) -> int:
    return max(detail.bounds.size, detail.highest.size)


def _thinned(values: npt.NDArray[np.float64]) -> list[float]:
    parts = np.array_split(values, min(_COLUMNS, len(values)))
    return [float(part.max()) for part in parts]


def gutter(flow: Flow, covered: Sequence[bool]) -> tuple[list[Markup], int]:
    """The shape of the network beside the rows of its map, one slice per row: a dot for a tensor, a
    line from each to those that follow it, in lanes where it passes others.

    Args:
        flow: The tensors.
        covered: Whether each takes a bound; input and logits count as covered.

    Returns:
        A slice for each tensor, and how many connections had no lane left.
    """
    longer = [edge for edge in flow.edges if edge[1] - edge[0] > 1]
    lanes: dict[tuple[int, int], int] = {}
    ends = [-1] * _MOST_LANES
    for edge in sorted(longer, key=lambda pair: (pair[0], pair[1] - pair[0])):
        free = next((lane for lane, last in enumerate(ends) if last <= edge[0]), None)
        if free is not None:
            ends[free] = edge[1]
            lanes[edge] = free
    width = 2 * _SPINE + _LANE * (max(lanes.values(), default=-1) + 1)
    straight = {edge for edge in flow.edges if edge[1] - edge[0] == 1}
    count = len(flow.tensors)
    slices = []
    for row in range(count):
        drawing = Drawing(f"flow-{row}", "", "", width, ROW)
        middle = ROW / 2
        if (row - 1, row) in straight:
            drawing.line(_SPINE, 0, _SPINE, middle, "wire")
        if (row, row + 1) in straight:
            drawing.line(_SPINE, middle, _SPINE, ROW, "wire")
        for (first, last), lane in lanes.items():
            x = 2 * _SPINE + _LANE * lane
            if first < row < last:
                drawing.line(x, 0, x, ROW, "wire")
            elif row == first:
                drawing.shape(
                    f"M{_SPINE:g} {middle:g}C{x:g} {middle:g} {x:g} {middle:g} {x:g} {ROW:g}",
                    "wire",
                )
            elif row == last:
                drawing.shape(
                    f"M{x:g} 0C{x:g} {middle:g} {x:g} {middle:g} {_SPINE:g} {middle:g}", "wire"
                )
        end = row in (0, count - 1)
        slices.append(_plain(drawing, "end" if end else "site" if covered[row] else "open"))
    return slices, len(longer) - len(lanes)


def _plain(wires: Drawing, kind: str) -> Markup:
    """A slice that readers of screens pass over: wires, as high as the row will be, and a dot."""
    head = Markup(
        '<span class="slice" aria-hidden="true"><svg width="{0}" viewBox="0 0 {0} {1}" '
        'preserveAspectRatio="none">'
    ).format(f"{wires.width:g}", f"{wires.height:g}")
    dot = Markup('</svg><i class="node {}"></i></span>').format(kind)
    return head + Markup("").join(wires.parts) + dot


def latency_figure(name: str, entries: Sequence[Mapping[str, Any]]) -> Markup:
    """Time beside the original's, with quartiles.

    Args:
        name: Unique in the page.
        entries: ``latency`` of a harden report.
    """
    shown = [entry for entry in entries if entry["graph"] != "original"]
    base = {e["batch_size"]: e["seconds"] for e in entries if e["graph"] == "original"}
    sizes = sorted({entry["batch_size"] for entry in shown})
    top = max(1.1, *(max(entry["ratio"], entry["ratio_high"]) for entry in shown))
    right = Scale(0, top, 92, 380)
    height = 30 + 42 * len(shown) + 26 * len(sizes) + 18
    said = "; ".join(
        f"{entry['graph']} at batch size {entry['batch_size']}: {entry['ratio']:.2f} times"
        for entry in shown
    )
    drawing = Drawing(name, "Time beside the original's", said, 460, height)
    y = 20.0
    for size in sizes:
        samples = "1 sample" if size == 1 else f"{size} samples"
        drawing.text(0, y, f"{samples} at a time", "strong")
        drawing.text(448, y, f"original {duration(base[size])}", "tick", "end")
        y += 14
        for entry in (one for one in shown if one["batch_size"] == size):
            drawing.text(0, y + 16, entry["graph"], f"on-{entry['graph']}")
            drawing.rect(right(0), y + 4, right(entry["ratio"]) - right(0), 16, entry["graph"], 2)
            low, high = right(entry["ratio_low"]), right(entry["ratio_high"])
            drawing.line(low, y + 12, high, y + 12, "whisker")
            for x in (low, high):
                drawing.line(x, y + 8, x, y + 16, "whisker")
            drawing.text(448, y + 17, f"{entry['ratio']:.2f} {TIMES}", "strong", "end")
            y += 30
        y += 24
    bottom = y - 30
    drawing.line(right(1), 28, right(1), bottom, "one")
    drawing.text(right(1), bottom + 16, f"1 {TIMES} the original", "tick", "middle")
    drawing.height = bottom + 24
    return drawing.render()


def attacks_figure(name: str, attacks: Sequence[Mapping[str, Any]]) -> Markup:
    """Success rates of the benchmark's attacks on original, hardened and detector graphs.

    Args:
        name: Unique in the page.
        attacks: ``benchmark.attacks`` of a harden report, at least one.
    """
    right = Scale(0, 1, 148, 440)
    step = 23.0
    bottom = 34 + step * len(attacks)
    said = "; ".join(
        f"{entry['attack']}: original {percent(entry['original'])}, hardened "
        f"{percent(entry['hardened'])}, detector {percent(entry['detector'])}"
        for entry in attacks
    )
    drawing = Drawing(name, "Attack success rates in the benchmark", said, 460, bottom + 40)
    for tick in (0, 0.25, 0.5, 0.75, 1):
        drawing.line(right(tick), 24, right(tick), bottom, "grid")
        drawing.text(right(tick), bottom + 18, f"{100 * tick:.0f} %", "tick", "middle")
    drawing.line(right(0.1), 24, right(0.1), bottom, "threshold")
    drawing.text(right(0.1), 16, "10 %: stopped", "strong", "middle")
    drawing.text(
        440, bottom + 36, "triggered samples that reach the attacker's class", "label", "end"
    )
    for index, entry in enumerate(attacks):
        y = 34 + step * (index + 0.5)
        drawing.text(138, y + 4.5, entry["attack"], "open-set" if entry["adaptive"] else "", "end")
        drawing.line(right(entry["detector"]), y, right(entry["original"]), y, "rail")
        for role, radius in zip(ROLES, (4.5, 4.5, 5.5), strict=True):
            drawing.dot(right(entry[role]), y, radius, role)
    return drawing.render()


def duration(seconds: float) -> str:
    """A time with its unit."""
    if seconds < 1e-3:
        return f"{1e6 * seconds:.0f} µs"
    if seconds < 1:
        return f"{1e3 * seconds:.3g} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"

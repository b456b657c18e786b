"""Figures of a detector's scores: distributions, p-values, the ROC curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from mmbm_onnx.report.html.svg import Drawing, Scale, short
from mmbm_onnx.report.layout import percent
from mmbm_onnx.rewriting.null import Null, p_values

Values = npt.NDArray[Any]

_WIDTH, _HEIGHT = 460.0, 260.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 448.0, 34.0, 214.0
_BINS = 48
_LINE = 17.0  # from one line of text to the next


def score_figure(
    name: str,
    clean: Values,
    threshold: float | None,
    *,
    unit: str = "",
    attacked: Values | None = None,
) -> Markup:
    """Histograms of scores with the threshold.

    Args:
        name: Unique in the page.
        clean: Scores of clean samples, ``(n,)``, n > 0.
        threshold: A score above it is flagged; None where none is.
        unit: Of the scores, where known.
        attacked: Scores of triggered samples, ``(m,)``; None or empty for none.
    """
    clean = _finite(clean)
    groups = [("clean", clean)]
    if attacked is not None and attacked.size:
        groups.append(("attacked", _finite(attacked)))
    scale = _score_scale([values for _, values in groups], threshold, left=6)
    bins = _bins(scale, threshold)
    shares = [_shares(values, scale, bins, threshold) for _, values in groups]
    top = max(float(share.max()) for share in shares)
    up = Scale(0, top, _BOTTOM, _TOP + 14)
    said = f"{len(clean)} clean scores from {short(clean.min())} to {short(clean.max())}"
    if len(groups) > 1:
        far = groups[1][1]
        said += f"; {len(far)} triggered ones from {short(far.min())} to {short(far.max())}"
    if threshold is not None and math.isfinite(threshold):
        said += f"; above {short(threshold)} a sample is flagged"
    drawing = Drawing(name, "Distribution of the detector's score", said, _WIDTH, _HEIGHT)
    _flagged_side(drawing, scale, threshold)
    for (kind, _), share in zip(groups, shares, strict=True):
        _bars(drawing, bins, up, share, kind)
    _bottom_axis(drawing, scale, f"score ({unit})" if unit else "score")
    _peaks(drawing, bins, up, shares, (f"{len(clean)} clean", _count(groups)))
    _threshold(drawing, scale, threshold)
    return drawing.render()


def p_value_curve(name: str, null: Null) -> Markup:
    """How improbable a score is for clean data, and from which score on it is improbable enough.

    Args:
        name: Unique in the page.
        null: The detector's.
    """
    rate = null.false_positive_rate
    scale = _score_scale([null.scores], null.threshold)
    scores = np.linspace(scale.low, scale.high, 200).astype(np.float32)
    found = p_values(null, scores).astype(np.float64)
    low = min(rate / 3, max(float(found.min()), rate / 100))
    up = Scale(low, 1, _BOTTOM, _TOP + 14, "log")
    drawing = Drawing(
        name,
        "p-value of a score",
        f"The share of clean data that scores at least as high, on a logarithmic axis. It falls "
        f"to {percent(rate)}, the rate that was asked for, at the threshold "
        f"{short(null.threshold)} or before.",
        _WIDTH,
        _HEIGHT,
    )
    _flagged_side(drawing, scale, null.threshold)
    for tick in up.ticks(6):
        drawing.line(_LEFT, up(tick), _RIGHT, up(tick), "grid")
        drawing.text(_LEFT - 6, up(tick) + 4.5, _rate(tick), "tick", "end")
    drawing.line(_LEFT, up(rate), _RIGHT, up(rate), "limit")
    drawing.text(_LEFT + 6, up(rate) + 16, f"asked for: {_rate(rate)}", "on-limit")
    drawing.path([(scale(s), up(p)) for s, p in zip(scores.tolist(), found, strict=True)], "curve")
    _bottom_axis(drawing, scale, "score")
    _threshold(drawing, scale, null.threshold)
    return drawing.render()


def p_value_figure(name: str, clean: Values, attacked: Values) -> Markup:
    """Histograms of p-values: even for clean data, at the left end for what is attacked.

    Args:
        name: Unique in the page.
        clean: p-values of clean samples, ``(n,)``.
        attacked: Of triggered samples, ``(m,)``, perhaps none.
    """
    bins = 20
    scale = Scale(0, 1, _LEFT, _RIGHT)
    groups = [("clean", clean)] + ([("attacked", attacked)] if attacked.size else [])
    shares = [
        np.histogram(np.nan_to_num(values.astype(np.float64)), bins, (0, 1))[0] / len(values)
        for _, values in groups
    ]
    top = max(float(share.max()) for share in shares)
    up = Scale(0, top, _BOTTOM, _TOP + 14)
    said = f"{percent(float(shares[0][0]))} of clean samples have a p-value below 0.05"
    if len(groups) > 1:
        said += f", and {percent(float(shares[1][0]))} of triggered ones"
    drawing = Drawing(name, "Distribution of p-values", said, _WIDTH, _HEIGHT)
    for tick in up.ticks(4):
        drawing.line(_LEFT, up(tick), _RIGHT, up(tick), "grid")
        drawing.text(_LEFT - 6, up(tick) + 4.5, _rate(tick), "tick", "end")
    for (kind, _), share in zip(groups, shares, strict=True):
        step = (_RIGHT - _LEFT) / bins
        inset = 1.0 if kind == "clean" else step * 0.28
        for index, value in enumerate(share):
            if value:
                y = up(float(value))
                drawing.rect(_LEFT + index * step + inset, y, step - 2 * inset, _BOTTOM - y, kind)
    drawing.line(_LEFT, up(1 / bins), _RIGHT, up(1 / bins), "limit")
    drawing.text(_RIGHT, up(1 / bins) - 6, "an even spread", "on-limit", "end")
    if len(groups) > 1:
        drawing.text(_LEFT + 26, _TOP + 8, f"{len(attacked)} triggered", "on-attacked")
    _bottom_axis(drawing, scale, "p-value", count=5)
    return drawing.render()


def roc_figure(
    name: str, clean: Values, attacked: Values, threshold: float | None, auc: float | None
) -> Markup:
    """Triggered samples caught against clean samples flagged, at every threshold.

    Args:
        name: Unique in the page.
        clean: Scores of clean samples, ``(n,)``, no NaN.
        attacked: Scores of triggered samples, ``(m,)``, no NaN.
        threshold: Where the detector stands; None where not known.
        auc: Area under the curve, as measured.
    """
    rates = roc_points(clean, attacked)
    least = 0.5 / len(clean)
    right = Scale(least, 1, _LEFT, _RIGHT, "log")
    up = Scale(0, 1, _BOTTOM, _TOP)
    said = "Share of triggered samples that are caught against the share of clean ones flagged."
    if auc is not None:
        said += f" The area under the curve, on even axes, is {auc:.4f}."
    drawing = Drawing(name, "ROC curve", said, _WIDTH, _HEIGHT)
    for tick in (0, 0.25, 0.5, 0.75, 1):
        drawing.line(_LEFT, up(tick), _RIGHT, up(tick), "grid")
        drawing.text(_LEFT - 6, up(tick) + 4.5, f"{100 * tick:.0f} %", "tick", "end")
    guess = np.geomspace(least, 1, 60)
    drawing.path([(right(float(g)), up(float(g))) for g in guess], "limit")
    points = [(right(max(false, least)), up(true)) for false, true in rates]
    drawing.path(points, "curve")
    for tick in right.ticks(5):
        drawing.line(right(tick), _BOTTOM, right(tick), _BOTTOM + 4, "axis")
        drawing.text(right(tick), _BOTTOM + 18, _rate(tick), "tick", "middle")
    drawing.line(_LEFT, _BOTTOM, _RIGHT, _BOTTOM, "axis")
    drawing.text(_RIGHT, _HEIGHT - 8, "clean samples flagged (log)", "label", "end")
    drawing.text(_LEFT, _TOP - 14, "triggered samples caught", "label")
    told: _Box | None = None
    if threshold is not None:
        false, true = float(np.mean(clean > threshold)), float(np.mean(attacked > threshold))
        told = _here(drawing, right(max(false, least)), up(true), false, true)
    for rate in (0.3, 0.6):  # along the line, where nothing else is said
        x, y = right(0.8 * rate), up(rate) + 4
        box = _Box(x - _wide("guessing"), x, y)
        if box.left > _LEFT and (told is None or not box.meets(told)):
            drawing.text(x, y, "guessing", "on-limit", "end")
            break
    return drawing.render()


class _Box(NamedTuple):
    """Where lines of text are, about; ``last`` is where the last stands."""

    left: float
    right: float
    last: float
    lines: int = 1

    def meets(self, other: _Box) -> bool:
        beside = self.right < other.left or other.right < self.left
        return not (beside or self._top > other._bottom or other._top > self._bottom)

    @property
    def _top(self) -> float:
        return self.last - _LINE * (self.lines - 1) - 13

    @property
    def _bottom(self) -> float:
        return self.last + 4


def _here(drawing: Drawing, x: float, y: float, false: float, true: float) -> _Box:
    """A detector's place on its ROC curve, told below it, or above where the axis is too near."""
    words = f"catches {percent(true)}, flags {percent(false)}"
    last = y + 39 if y + 39 < _BOTTOM else y - 18
    side = "start" if x < (_LEFT + _RIGHT) / 2 else "end"
    drawing.dot(x, y, 5.5, "here")
    at = x + 12 if side == "start" else x - 12
    drawing.text(at, last - _LINE, "the threshold", "strong", side)
    drawing.text(at, last, words, "", side)
    left = at if side == "start" else at - _wide(words)
    return _Box(left, left + _wide(words), last, 2)


def _wide(words: str) -> float:
    """At least as wide as a text is."""
    return 7.2 * len(words)


def roc_points(clean: Values, attacked: Values) -> list[tuple[float, float]]:
    """Corners of the ROC curve, from (0, 0) to (1, 1): shares of clean and of attacked samples
    that score at least as high as each score there is."""
    scores = np.unique(np.concatenate([clean, attacked]).astype(np.float64))[::-1]
    ordered = [np.sort(values.astype(np.float64)) for values in (clean, attacked)]
    shares = [1 - np.searchsorted(values, scores, side="left") / len(values) for values in ordered]
    points = [(0.0, 0.0), *zip(*(share.tolist() for share in shares), strict=True)]
    # On a level or upright stretch the ends suffice.
    kept = points[:1]
    for before, point, after in zip(points, points[1:], points[2:], strict=False):
        level = before[1] == point[1] == after[1]
        upright = before[0] == point[0] == after[0]
        if not (level or upright):
            kept.append(point)
    return [*kept, points[-1]]


def _finite(values: Values) -> npt.NDArray[np.float64]:
    """Values that are numbers, infinite ones as the largest that is not."""
    wide = values.astype(np.float64)
    wide = wide[~np.isnan(wide)]
    finite = wide[np.isfinite(wide)]
    if not finite.size:
        return np.zeros(1)
    return np.clip(wide, finite.min(), finite.max())


def _score_scale(
    groups: Sequence[Values], threshold: float | None, *, left: float = _LEFT
) -> Scale:
    low = min(float(values.min()) for values in groups)
    high = max(float(values.max()) for values in groups)
    near = float(groups[0].max())
    if threshold is not None and math.isfinite(threshold):
        low, high, near = min(low, threshold), max(high, threshold), max(near, threshold)
    spread = (near - low) or 1.0
    if high - low > 6 * spread:
        knee = near + 0.15 * spread
        return Scale(low, high, left, _RIGHT, "far", knee)
    return Scale(low, max(high, near + 0.12 * spread), left, _RIGHT)


def _bins(scale: Scale, threshold: float | None) -> npt.NDArray[np.float64]:
    """Places of the bins' edges; the threshold is one of them."""
    if threshold is None or not math.isfinite(threshold):
        return np.linspace(scale.start, scale.end, _BINS + 1)
    middle = scale(threshold)
    share = (middle - scale.start) / (scale.end - scale.start)
    before = min(max(1, round(share * _BINS)), _BINS - 1)
    left = np.linspace(scale.start, middle, before + 1)
    return np.concatenate([left, np.linspace(middle, scale.end, _BINS - before + 1)[1:]])


def _shares(
    values: Values, scale: Scale, bins: npt.NDArray[np.float64], threshold: float | None
) -> npt.NDArray[np.float64]:
    """Share of the values in each bin; what is at the threshold is not above it."""
    ends = (bins - scale.start) / (scale.end - scale.start)
    edges = np.array([scale.value(float(end)) for end in ends])
    if threshold is not None and math.isfinite(threshold):
        edges[int(np.abs(edges - threshold).argmin())] = np.nextafter(threshold, np.inf)
    edges[0], edges[-1] = -np.inf, np.inf
    return np.asarray(np.histogram(values, np.maximum.accumulate(edges))[0] / max(len(values), 1))


def _bars(
    drawing: Drawing, bins: npt.NDArray[np.float64], up: Scale, shares: Values, kind: str
) -> None:
    for start, end, share in zip(bins.tolist(), bins[1:].tolist(), shares, strict=False):
        if share:
            y = min(up(float(share)), _BOTTOM - 1.5)  # one sample of thousands is to be seen, too
            drawing.rect(start + 0.5, y, end - start - 1, _BOTTOM - y, kind, 1)


def _peaks(
    drawing: Drawing,
    bins: npt.NDArray[np.float64],
    up: Scale,
    shares: Sequence[Values],
    words: Sequence[str],
) -> None:
    """What each group is, over its highest bar and clear of all; side by side where they meet."""
    places = []
    for share, told in zip(shares, words, strict=False):
        peak = int(share.argmax())
        middle = float(bins[peak] + bins[peak + 1]) / 2
        half = _wide(told) / 2
        x = min(max(middle, float(bins[0]) + half), _RIGHT - half)
        under = (bins[1:] > x - half) & (bins[:-1] < x + half)
        highest = max(float(other[under].max(initial=0)) for other in shares)
        places.append(_Box(x - half, x + half, up(highest) - 6))
    if len(places) > 1 and places[0].meets(places[1]):
        order = sorted((0, 1), key=lambda index: places[index].left)
        wide = [_wide(words[index]) for index in order]
        first, second = (places[index] for index in order)
        between = (first.left + second.right) / 2 + (wide[0] - wide[1]) / 2
        between = min(max(between, float(bins[0]) + wide[0]), _RIGHT - wide[1])
        y = min(first.last, second.last)
        places[order[0]] = _Box(between - wide[0], between, y)
        places[order[1]] = _Box(between, between + wide[1], y)
    for kind, box, told in zip(("clean", "attacked"), places, words, strict=False):
        drawing.text((box.left + box.right) / 2, box.last, told, f"on-{kind}", "middle")


def _flagged_side(drawing: Drawing, scale: Scale, threshold: float | None) -> None:
    if threshold is not None and math.isfinite(threshold):
        x = scale(threshold)
        drawing.rect(x, _TOP, _RIGHT - x, _BOTTOM - _TOP, "zone")


def _threshold(drawing: Drawing, scale: Scale, threshold: float | None) -> None:
    if threshold is None or not math.isfinite(threshold):
        return
    x = scale(threshold)
    drawing.line(x, _TOP, x, _BOTTOM, "threshold")
    anchor = "end" if x > (_LEFT + _RIGHT) / 2 else "start"
    drawing.text(x, _TOP - 12, f"threshold {short(threshold)}", "strong", anchor)


def _bottom_axis(drawing: Drawing, scale: Scale, label: str, count: int = 6) -> None:
    drawing.line(scale.start, _BOTTOM, _RIGHT, _BOTTOM, "axis")
    for tick in scale.ticks(count):
        drawing.line(scale(tick), _BOTTOM, scale(tick), _BOTTOM + 4, "axis")
        drawing.text(scale(tick), _BOTTOM + 18, short(tick), "tick", "middle")
    drawing.text(_RIGHT, _HEIGHT - 8, label, "label", "end")


def _count(groups: Sequence[tuple[str, Values]]) -> str:
    return f"{len(groups[1][1])} triggered" if len(groups) > 1 else ""


def _rate(value: float) -> str:
    return f"{100 * value:.3g} %"

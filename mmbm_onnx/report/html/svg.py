"""Figures as inline SVG: scales, and a drawing that knows its title and what it shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from unicodedata import category

from markupsafe import Markup, escape

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Scale:
    """From values to places along an axis.

    Attributes:
        low, high: Values at the ends.
        start, end: Places of the ends.
        kind: ``"linear"``, ``"log"`` (values above 0), or ``"far"``: linear up to ``knee`` and
            logarithmic from there on, for few values far beyond all others.
        knee: See ``kind``; above ``low``.
    """

    low: float
    high: float
    start: float
    end: float
    kind: str = "linear"
    knee: float = 0.0

    def __call__(self, value: float) -> float:
        """The place of a value, kept between the ends."""
        share = (self._even(value) - self._even(self.low)) / self._width
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)

    def value(self, share: float) -> float:
        """The value at a share of the way from ``low`` to ``high``."""
        even = self._even(self.low) + share * self._width
        if self.kind == "log":
            return math.pow(10.0, even)
        unit = self.knee - self.low
        if self.kind == "far" and even > 1:
            return self.low + unit * math.exp(even - 1)
        return self.low + unit * even if self.kind == "far" else even

    def ticks(self, count: int) -> list[float]:
        """Round values between the ends, about so many."""
        if self.kind == "log":
            first, last = (
                math.ceil(math.log10(self.low) - 1e-9),
                math.floor(math.log10(self.high) + 1e-9),
            )
            step = max(1, math.ceil((last - first + 1) / count))
            return [10.0**power for power in range(last, first - 1, -step)][::-1]
        if self.kind == "far":
            near = round_values(self.low, self.knee, max(2, count // 2))
            far = []
            power = 10.0 ** math.floor(math.log10(max(self.knee, 1e-9)))
            while power <= self.high:
                far += [power * digit for digit in (1, 2, 5) if power * digit <= self.high]
                power *= 10
            taken = [value for value in near if value <= self.knee] or [self.low]
            for value in far:
                if value > self.knee and self(value) - self(taken[-1]) > 34:
                    taken.append(value)
            return taken
        return round_values(self.low, self.high, count)

    @property
    def _width(self) -> float:
        return (self._even(self.high) - self._even(self.low)) or 1.0

    def _even(self, value: float) -> float:
        if self.kind == "log":
            return math.log10(max(value, 1e-300))
        if self.kind == "far":
            unit = (value - self.low) / (self.knee - self.low)
            return unit if unit <= 1 else 1 + math.log(unit)
        return value


def round_values(low: float, high: float, count: int) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten between two values, about ``count`` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / max(count, 1)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next((power * digit for digit in (1, 2, 5) if power * digit >= raw), power * 10)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


def short(value: float) -> str:
    """A number for an axis: no digit too many, a real minus sign."""
    if not math.isfinite(value):
        text = "-infinite" if value < 0 else "infinite"
    elif value != 0 and (abs(value) >= 1e5 or abs(value) < 1e-4):
        mantissa, power = f"{value:.0e}".split("e")
        text = f"{mantissa}e{int(power)}"
    else:
        text = f"{value:.4g}"
    return text.replace("-", "\N{MINUS SIGN}")


def printable(text: object) -> str:
    """Text in which controls and what turns the direction of writing are replaced."""
    mark = "\N{REPLACEMENT CHARACTER}"
    return "".join(
        char if char.isprintable() or category(char) == "Zs" else mark for char in str(text)
    )


@dataclass
class Drawing:
    """An SVG figure in the making. Lengths are in its own units; text is 13 units high.

    Attributes:
        name: Unique in the page, for what refers to it.
        title: What it shows, for readers of screens.
        desc: What is to be seen in it.
        width, height: Its size.
    """

    name: str
    title: str
    desc: str
    width: float
    height: float
    parts: list[Markup] = field(default_factory=list)

    def rect(
        self, x: float, y: float, width: float, height: float, kind: str, rx: float = 0
    ) -> None:
        """A rectangle of a style sheet's class."""
        corner = Markup(' rx="{}"').format(_n(rx)) if rx else ""
        self.parts.append(
            Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"{}/>').format(
                kind, _n(x), _n(y), _n(max(width, 0)), _n(max(height, 0)), corner
            )
        )

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """A straight line."""
        self.parts.append(
            Markup('<line class="{}" x1="{}" y1="{}" x2="{}" y2="{}"/>').format(
                kind, _n(x1), _n(y1), _n(x2), _n(y2)
            )
        )

    def path(self, points: Sequence[Point], kind: str, *, closed: bool = False) -> None:
        """A line through points."""
        text = "L".join(f"{_n(x)} {_n(y)}" for x, y in points)
        self.shape(f"M{text}{'Z' if closed else ''}", kind)

    def shape(self, commands: str, kind: str) -> None:
        """A path of SVG's own commands."""
        self.parts.append(Markup('<path class="{}" d="{}"/>').format(kind, commands))

    def dot(self, x: float, y: float, radius: float, kind: str) -> None:
        """A disc."""
        self.parts.append(
            Markup('<circle class="{}" cx="{}" cy="{}" r="{}"/>').format(
                kind, _n(x), _n(y), _n(radius)
            )
        )

    def text(
        self, x: float, y: float, words: object, kind: str = "", anchor: str = "start"
    ) -> None:
        """Words; ``anchor`` is ``start``, ``middle`` or ``end``."""
        self.parts.append(
            Markup('<text class="t {}" x="{}" y="{}" text-anchor="{}">{}</text>').format(
                kind, _n(x), _n(y), anchor, escape(printable(words))
            )
        )

    def render(self, kind: str = "figure", *, stretched: bool = False) -> Markup:
        """The element.

        Args:
            kind: Class of the style sheet.
            stretched: Whether it fills its place whatever that does to its form.
        """
        aspect = Markup(' preserveAspectRatio="none"') if stretched else ""
        head = Markup(
            '<svg class="{}" viewBox="0 0 {} {}"{} role="img" aria-labelledby="{}-t {}-d">'
            '<title id="{}-t">{}</title><desc id="{}-d">{}</desc>'
        ).format(
            kind,
            _n(self.width),
            _n(self.height),
            aspect,
            *(self.name,) * 3,
            escape(printable(self.title)),
            self.name,
            escape(printable(self.desc)),
        )
        return head + Markup("").join(self.parts) + Markup("</svg>")


def _n(value: float) -> str:
    """A length with at most two digits behind the point."""
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text

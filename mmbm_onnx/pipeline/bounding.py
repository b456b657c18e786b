"""The hardened graph: bounds written into the original, folded into weights where that works."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx

from mmbm_onnx.errors import OptionError, RewriteError
from mmbm_onnx.evaluation.compare import worst_difference
from mmbm_onnx.execution.parity import HALF_TOLERANCE
from mmbm_onnx.graph.precision import has_halves
from mmbm_onnx.pipeline.runner import Runner
from mmbm_onnx.rewriting.checks import check_signature, check_written
from mmbm_onnx.rewriting.folding.fold import Folded, fold_recorded
from mmbm_onnx.rewriting.folding.record import FOLDED, Record
from mmbm_onnx.rewriting.harden import insert_bounds
from mmbm_onnx.runtime.providers import CPU, resolve_provider
from mmbm_onnx.types import Bounds, Choice, Interface, Site

# Of bounded logits in ONNX Runtime against torch, relative to the largest logit.
_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Bounded:
    """A graph with bounds.

    Attributes:
        proto: The graph, not stamped.
        folded: Sites whose bounds are folded into weights.
        depthwise: Whether depthwise convolutions were allowed for that.
        obstacle: Why none is, where something stands in the way of all.
        provenance: What its metadata has to tell of that.
        difference: Worst difference of its logits from torch with the same bounds, over the largest
            logit; 0 as long as it was not compared.
        failed: Why they are not, where the graph was made and then did not compute what torch does.
        source: What folding gave, if the graph is that.
        warnings: One line each.
    """

    proto: onnx.ModelProto
    folded: frozenset[str]
    depthwise: bool
    obstacle: str
    provenance: dict[str, str]
    difference: float = 0.0
    failed: str = ""
    source: Folded | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bounding:
    """Writes bounds into one model.

    Attributes:
        proto: The original; not changed.
        interface: How it is fed and read.
        sites: Where bounds go.
        fold: Whether bounds per channel are folded into weights: wherever they can be, ``"always"``
            all of them, or ``"never"``.
        provider: Where the graph is to run: on a CPU, depthwise convolutions help.
    """

    proto: onnx.ModelProto
    interface: Interface
    sites: Sequence[Site]
    fold: Choice
    provider: str | None

    def rehearse(self, *, channels: bool) -> None:
        """See whether bounds can be written, with some that mean nothing.

        Args:
            channels: Whether they are per channel, where channels are known.

        Raises:
            RewriteError: They cannot.
            OptionError: Not all of them can be folded, and that is asked for.
        """
        check_written(self._insert(ones(self.sites, channels=channels)).proto)

    def write(
        self,
        bounds: Bounds,
        run: Runner,
        x: npt.NDArray[np.generic],
        expected: npt.NDArray[np.float32],
    ) -> Bounded:
        """The graph with bounds, compared with torch.

        Args:
            bounds: The bounds.
            run: ONNX Runtime.
            x: Samples ``(n, ...)``.
            expected: Logits ``(n, classes)`` of torch with these bounds.

        Raises:
            RewriteError: It is invalid or computes something else.
            OptionError: As ``rehearse``.
        """
        written = self._insert(bounds)
        try:
            return self._checked(written, run, x, expected)
        except RewriteError as error:
            if self.fold != "auto" or not written.folded:
                raise
            reason = f"bounds are not folded into weights: {error}"
        plain = replace(self._plain(bounds), obstacle=reason, failed=reason, warnings=(reason,))
        return self._checked(plain, run, x, expected)

    def _plain(self, bounds: Bounds) -> Bounded:
        return Bounded(insert_bounds(self.proto, self.sites, bounds), frozenset(), False, "", {})

    def _insert(self, bounds: Bounds) -> Bounded:
        if self.fold == "never":
            return self._plain(bounds)
        record = folding_of(bounds, self.interface, self.provider)
        found = fold_recorded(self.proto, self.sites, record)
        if self.fold == "always" and found.kept:
            raise OptionError(_not_all(found))
        provenance = {FOLDED: record.write()} if found.folded else {}
        return Bounded(
            found.proto,
            frozenset(found.folded),
            record.depthwise,
            found.obstacle,
            provenance,
            source=found,
        )

    def _checked(
        self,
        written: Bounded,
        run: Runner,
        x: npt.NDArray[np.generic],
        expected: npt.NDArray[np.float32],
    ) -> Bounded:
        check_written(written.proto)
        check_signature(self.proto, written.proto, folded=bool(written.folded))
        found = worst_difference(expected, run.logits(written.proto, x)).relative
        if not found <= (HALF_TOLERANCE if has_halves(self.proto) else _TOLERANCE):
            raise RewriteError(
                f"the hardened graph differs from torch with the same bounds by {found:.1e} of "
                "the largest logit; nothing is written"
            )
        return replace(written, difference=found)


def folding_of(bounds: Bounds, interface: Interface, provider: str | None) -> Record:
    """How bounds are folded in a graph that is to run on a provider."""
    return Record(bounds, resolve_provider(provider) == CPU, (interface.logits,))


def ones(sites: Sequence[Site], *, channels: bool) -> Bounds:
    """Bounds that mean nothing, per channel where that is asked for and channels are known."""
    return Bounds(
        {
            site.tensor: np.ones(
                (site.channels,) if channels and site.channels is not None else (), np.float32
            )
            for site in sites
        }
    )


def _not_all(found: Folded) -> str:
    count = len(found.kept) + len(found.folded)
    reason = found.obstacle or f"that of {found.kept[0]!r}, for one"
    return (
        f"bounds per channel of {len(found.kept)} of {count} activations cannot be folded into "
        f"weights ({reason}); use --fold auto"
    )

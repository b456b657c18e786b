"""Which bounded branch a detector gets: a copy of the original's nodes, or a shadow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from mmbm_onnx.errors import OptionError, RewriteError
from mmbm_onnx.evaluation.compare import upper_limit
from mmbm_onnx.evaluation.predictions import Predictions
from mmbm_onnx.evaluation.shadow_branch import branch_difference
from mmbm_onnx.graph.inference import infer
from mmbm_onnx.graph.mapped import mapped
from mmbm_onnx.graph.walk import constant_values, inner_graphs, standard_opset, value_types
from mmbm_onnx.pipeline.bounding import folding_of, ones
from mmbm_onnx.pipeline.runner import Runner
from mmbm_onnx.rewriting.checks import check_written
from mmbm_onnx.rewriting.detector import build_detector
from mmbm_onnx.rewriting.folding.fold import Folded, fold_recorded
from mmbm_onnx.rewriting.folding.record import Record
from mmbm_onnx.rewriting.null import fit_null
from mmbm_onnx.rewriting.shadow.alone import with_shadow_logits
from mmbm_onnx.rewriting.shadow.branch import Shadow
from mmbm_onnx.rewriting.shadow.cut import bare_logits, cut_at_logits
from mmbm_onnx.runtime.converting import to_half, to_int8
from mmbm_onnx.runtime.providers import CPU, resolve_provider
from mmbm_onnx.types import Bounds, Interface, Samples, ShadowChoice, ShadowKind, Site

_OPSET = 13  # DequantizeLinear by channel
_RANGES = 256  # samples that the ranges of activations are seen on
_BATCH = 16
# Share of decisions that are the hardened graph's: below the one there is a warning, or no shadow,
# if nobody asked for it; below the other an error. Where bounds of a layer's channels are far
# apart, the range of one may hide the others from int8.
_LEAST_AGREEMENT, _LEAST_ASKED = 0.98, 0.9
_MOST_BYTES = 1 << 29  # of a model whose weights are stored twice without being asked
_MOST_WRITTEN = (1 << 31) - (1 << 24)  # bytes of a file of ONNX, and some room
_GROWTH: dict[ShadowKind, float] = {"folded": 2, "half": 1.5, "int8": 1.25}


@dataclass(frozen=True, eq=False)
class Shadowed:
    """What became of a shadow.

    Attributes:
        shadow: The branch; None for a copy of the original's nodes.
        answers: What the model answers on the calibration part with the shadow's logits; None
            without a shadow.
        reason: Why there is no shadow where there might have been one; or nothing.
        warnings: One line each.
    """

    shadow: Shadow | None = None
    answers: Predictions | None = None
    reason: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shadowing:
    """Makes a shadow of one model.

    Attributes:
        choice: What is asked for: a kind of shadow, which it is then, or it is an error; or
            ``"auto"``, folded wherever that can be.
        proto: The original; not changed.
        interface: How it is fed and read.
        sites: Where bounds are.
        provider: Where the detector is to run.
        unfit: Why the folded graph is not to be the branch, if something is known against it.
        folded: What folding gave for the hardened graph; None if that is another one.
    """

    choice: ShadowChoice
    proto: onnx.ModelProto
    interface: Interface
    sites: Sequence[Site]
    provider: str | None
    unfit: str = ""
    folded: Folded | None = None

    @property
    def asked(self) -> bool:
        """Whether a shadow is asked for, so that there has to be one."""
        return self.choice not in ("auto", "float")

    def rehearse(self, x: npt.NDArray[np.float32], *, channels: bool) -> None:
        """See whether what is asked for can be done, with bounds that mean nothing.

        Args:
            x: Some samples, to see ranges of activations on.
            channels: Whether bounds are per channel, where channels are known.

        Raises:
            OptionError: It cannot.
            RewriteError: The detector cannot be built around a shadow.
        """
        if not self.asked:
            return
        bounds = ones(self.sites, channels=channels)
        record = folding_of(bounds, self.interface, self.provider)
        folded = fold_recorded(self.proto, self.sites, record)
        self._refuse(self._obstacle(folded))
        try:
            shadow = self._convert(folded, record, x)
        except RewriteError as error:
            self._refuse(str(error))
            raise
        null = fit_null(np.linspace(-1, 1, 99, dtype=np.float32), 0.01)
        detector = build_detector(
            self.proto, self.interface, self.sites, bounds, null, shadow=shadow
        )
        check_written(detector)
        self._refuse(self.difference(detector, shadow))

    def make(
        self,
        bounds: Bounds,
        run: Runner,
        fit: Samples,
        calibration: Samples,
        hardened: Predictions,
        seed: int,
    ) -> Shadowed:
        """The shadow, if there is to be one.

        Args:
            bounds: The bounds.
            run: ONNX Runtime.
            fit: Clean samples that ranges of activations are seen on.
            calibration: Others that it is judged on.
            hardened: What the hardened graph answers to these.
            seed: Of the choice among ``fit``.

        Raises:
            OptionError, RewriteError: There has to be one, and it cannot be made.
        """
        if self.choice == "float":
            return Shadowed()
        if self.unfit and self._kind == "folded":
            if self.asked:
                raise RewriteError(f"no folded branch: {self.unfit}; use --shadow float")
            return Shadowed(reason=self.unfit)
        record = folding_of(bounds, self.interface, self.provider)
        folded = self.folded or fold_recorded(self.proto, self.sites, record)
        if reason := self._obstacle(folded):
            self._refuse(reason)
            return Shadowed(reason=reason)
        try:
            shadow = self._convert(folded, record, fit.at_most(_RANGES, seed).x)
        except RewriteError as error:
            if self.asked:
                raise
            return Shadowed(reason=str(error))
        if shadow.kind == "folded" and self.folded is not None:
            return Shadowed(shadow, hardened)
        answers = run.answers(with_shadow_logits(self.proto, self.interface, shadow), calibration.x)
        agreement = float((answers.classes == hardened.classes).mean())
        if agreement >= _LEAST_AGREEMENT:
            return Shadowed(shadow, answers)
        poor = (
            f"the {shadow.kind} branch decides only {agreement:.1%} of the calibration part as the "
            "hardened graph does"
        )
        if not self.asked:
            return Shadowed(reason=poor)
        if agreement < _LEAST_ASKED:
            raise RewriteError(f"{poor}; use --shadow auto")
        return Shadowed(shadow, answers, warnings=(poor,))

    def difference(self, detector: onnx.ModelProto, shadow: Shadow) -> str:
        """Why a detector's branch is not what folding gave, up to its rounding; or nothing."""
        plain = shadow.proto
        if shadow.kind != "folded":
            plain = cut_at_logits(shadow.folded, self.interface)
        found = branch_difference(plain, detector, self.interface)
        return f"it is not what folding the bounds gives: {found}" if found else ""

    @property
    def _kind(self) -> ShadowKind:
        return self.choice if self.choice in ("half", "int8") else "folded"

    def _refuse(self, reason: str) -> None:
        if self.asked and reason:
            raise OptionError(f"no {self.choice} branch: {reason}; use --shadow auto")

    def _obstacle(self, folded: Folded) -> str:
        """Why there can be no shadow, or nothing."""
        if mapped(self.proto):
            return "the model's weights stay in their files"
        if folded.obstacle:
            return folded.obstacle
        kinds = value_types(infer(self.proto).graph)
        for name in (self.interface.input, self.interface.logits):
            kind = kinds.get(name)
            if kind is None or kind.tensor_type.elem_type != onnx.TensorProto.FLOAT:
                return f"{name!r} is not float32"
        others = {tensor.data_type for tensor in self.proto.graph.initializer} & {
            onnx.TensorProto.FLOAT16,
            onnx.TensorProto.BFLOAT16,
            onnx.TensorProto.DOUBLE,
        }
        if others or self.proto.graph.sparse_initializer:
            return "the model's weights are not all float32"
        if any(True for node in self.proto.graph.node for _ in inner_graphs(node)):
            return "the model has subgraphs"
        size = self.proto.ByteSize()
        if size * _GROWTH[self._kind] > _MOST_WRITTEN:
            return f"with the model's {size / 2**20:.0f} MiB the detector would not fit into 2 GiB"
        if self.choice == "auto":
            if size > _MOST_BYTES:
                return f"weights of its own would double the model's {size / 2**20:.0f} MiB"
            if folded.kept and not folded.folded:
                return "no bound can be folded into weights"
        if self._kind != "int8":
            return ""
        if resolve_provider(self.provider) != CPU:
            return "int8 is for the CPU provider"
        opset = standard_opset(self.proto.opset_import) or 0
        if opset < _OPSET:
            return f"int8 takes opset {_OPSET}, the model has {opset}"
        if folded.kept:
            return f"the bounds of {folded.kept[0]!r} cannot be folded into weights"
        return ""

    def _convert(self, folded: Folded, record: Record, x: npt.NDArray[np.float32]) -> Shadow:
        proto = cut_at_logits(folded.proto, self.interface)
        if self._kind == "folded":
            return Shadow(self._kind, proto, record, folded.proto)
        if self._kind == "half":
            converted = to_half(proto)
        else:
            converted = bare_logits(to_int8(proto, self._batches(x), _limits(proto)))
        check_written(converted)
        return Shadow(self._kind, converted, record, folded.proto)

    def _batches(self, x: npt.NDArray[np.float32]) -> list[npt.NDArray[np.float32]]:
        size = self.interface.batch
        if size is not None:  # whole batches, the last one filled up
            x = np.resize(x, (-(-len(x) // size) * size, *x.shape[1:]))
        step = size or _BATCH
        return [x[start : start + step] for start in range(0, len(x), step)]


def _limits(proto: onnx.ModelProto) -> dict[str, float]:
    """What a Clip of the graph limits its output to."""
    constants = constant_values(proto.graph)
    return {
        node.output[0]: float(limit.reshape(()))
        for node in proto.graph.node
        if node.op_type == "Clip" and (limit := upper_limit(node, constants)) is not None
    }

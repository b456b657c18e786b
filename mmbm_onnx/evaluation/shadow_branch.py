"""The bounded branch of a detector where it is no copy of the original's nodes, judged.

It is what folding makes of the original and the bounds, maybe in fewer bits. Folding is a function
of both, and the metadata tells these, so it is done again, and compared; up to rounding, if it is
in fewer bits.
"""

from __future__ import annotations

import onnx

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.evaluation.rounded import rounding_difference
from mmbm_onnx.graph.provenance import PREFIX, read_provenance
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.graph.walk import consumed, inner_graphs
from mmbm_onnx.rewriting.folding.fold import fold_recorded
from mmbm_onnx.rewriting.folding.record import Record, read_record
from mmbm_onnx.rewriting.shadow.branch import KIND, SHADOW
from mmbm_onnx.rewriting.shadow.cut import cut_at_logits
from mmbm_onnx.types import Interface

_FED = "mmbm_odd/input"  # what it reads in two stages
# What shows that values are rounded.
_OPERATORS = {"folded": "", "int8": "DequantizeLinear", "half": "Cast"}


def has_shadow(detector: onnx.ModelProto) -> bool:
    """Whether a detector has a shadow, or its metadata says so."""
    return KIND in read_provenance(detector) or bool(_homes(detector))


def read_shadow_record(detector: onnx.ModelProto) -> Record:
    """What was folded for it.

    Raises:
        RewriteError: The metadata does not tell, or tells of another kind than is there.
    """
    stated = read_provenance(detector)
    kind, record = stated.get(KIND), read_record(stated)
    if kind not in _OPERATORS or record is None:
        raise RewriteError(f"its metadata {PREFIX}{KIND} does not tell of its shadow branch")
    homes = _homes(detector)
    sign = _OPERATORS[kind]
    if not any(sign in ("", node.op_type) for home in homes for node in _own(home)):
        raise RewriteError(
            f"its metadata tells of a shadow branch of the kind {kind!r}, and it has none"
        )
    return record


def shadow_difference(
    inlined: onnx.ModelProto, detector: onnx.ModelProto, record: Record, interface: Interface
) -> str:
    """Why a detector's shadow is not what folding the bounds gives, up to its rounding.

    Args:
        inlined: The original, activation functions inlined.
        detector: The detector, with a shadow.
        record: What was folded.
        interface: The original's.

    Returns:
        One line on the first difference, or nothing.
    """
    if record.unscaled != (interface.logits,):
        return "its logits are not kept as they are by its folding"
    try:
        folded = fold_recorded(inlined, find_sites(inlined).sites, record).proto
    except RewriteError as error:
        return f"its folding cannot be repeated: {error}"
    plain = cut_at_logits(folded, interface)
    del folded
    return branch_difference(plain, detector, interface)


def branch_difference(
    plain: onnx.ModelProto, detector: onnx.ModelProto, interface: Interface
) -> str:
    """Why a detector's shadow is not a given graph, up to its rounding.

    Args:
        plain: What folding gave, cut off behind its logits.
        detector: The detector, with a shadow.
        interface: The original's.

    Returns:
        One line on the first difference, or nothing.
    """
    homes = _homes(detector)
    if len(homes) != 1:
        return f"it is spread over {len(homes)} graphs"
    (home,) = homes
    given = onnx.GraphProto(
        node=_own(home),
        initializer=[tensor for tensor in home.initializer if tensor.name.startswith(SHADOW)],
        input=[onnx.ValueInfoProto(name=_fed(home, detector, interface))],
        output=[onnx.ValueInfoProto(name=SHADOW + interface.logits)],
    )
    others = [node for node in home.node if not _is_own(node)]
    if not any(given.output[0].name in consumed(node) for node in others):
        return "its logits are not read by the decision"
    exact = read_provenance(detector).get(KIND) == "folded"
    return rounding_difference(plain.graph, given, exact=exact)


def _fed(home: onnx.GraphProto, detector: onnx.ModelProto, interface: Interface) -> str:
    return interface.input if home is detector.graph else _FED


def _homes(detector: onnx.ModelProto) -> list[onnx.GraphProto]:
    """Graphs with nodes of a shadow: the main one, or one of its If."""
    graphs = [detector.graph]
    graphs += [inner for node in detector.graph.node for _, inner in inner_graphs(node)]
    return [graph for graph in graphs if _own(graph)]


def _own(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    return [node for node in graph.node if _is_own(node)]


def _is_own(node: onnx.NodeProto) -> bool:
    return any(name.startswith(SHADOW) for name in node.output)

"""A hardened graph whose bounds were folded into weights, as it was before.

Folding changes weights, so that they can be compared with the original's no more. But it is a
function of the original and the bounds, and the graph's metadata tells these: so it is done again,
and has to give the same graph, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from mmbm_onnx.errors import RewriteError
from mmbm_onnx.evaluation.sameness import changed_node, changed_weight
from mmbm_onnx.graph.provenance import read_provenance
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.rewriting.folding.fold import fold_recorded
from mmbm_onnx.rewriting.folding.record import read_record
from mmbm_onnx.rewriting.harden import insert_bounds


@dataclass(frozen=True, slots=True)
class Unfolded:
    """A hardened graph with each bound in a Clip or Min.

    Attributes:
        proto: The graph that the original and the bounds in its metadata give; as it was given
            where there are none, or none that can be read.
        folded: Whether it was another one before.
        difference: How the graph as given differs from what folding makes of the original.
    """

    proto: onnx.ModelProto
    folded: bool = False
    difference: str = ""


def unfold(inlined: onnx.ModelProto, hardened: onnx.ModelProto) -> Unfolded:
    """Undo the folding of a hardened graph, if its metadata tells of one.

    Args:
        inlined: The original, activation functions inlined.
        hardened: The graph; not changed.
    """
    try:
        record = read_record(read_provenance(hardened))
        if record is None:
            return Unfolded(hardened)
        sites = find_sites(inlined).sites
        again = fold_recorded(inlined, sites, record).proto
        found = changed_weight(again, hardened) or changed_node(again, hardened, frozenset())
        difference = f"not what folding its bounds gives: {found}" if found else ""
        plain = insert_bounds(inlined, sites, record.bounds)
    except RewriteError as error:
        return Unfolded(hardened, True, f"its folding cannot be repeated: {error}")
    del plain.metadata_props[:]
    plain.metadata_props.extend(hardened.metadata_props)
    return Unfolded(plain, True, difference)

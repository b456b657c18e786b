"""The model as if its shadow were all there is: what the detector answers where a class stays."""

from __future__ import annotations

import onnx
import onnx_graphsurgeon as gs

from mmbm_onnx.rewriting.heads import producing
from mmbm_onnx.rewriting.shadow.branch import Shadow, graft
from mmbm_onnx.rewriting.surgeon import Surgeon
from mmbm_onnx.types import Interface


def with_shadow_logits(
    proto: onnx.ModelProto, interface: Interface, shadow: Shadow
) -> onnx.ModelProto:
    """The model with the shadow's logits in the place of its own, and its outputs behind them.

    Args:
        proto: A checked model; not changed.
        interface: Where its input and logits are.
        shadow: Made of it.

    Raises:
        RewriteError: No node of the main graph produces the logits.
    """
    surgeon = Surgeon(proto)
    logits = producing(surgeon, interface.logits)
    source = next(node for node in surgeon.graph.nodes if any(t is logits for t in node.outputs))
    place = next(i for i, tensor in enumerate(source.outputs) if tensor is logits)
    source.outputs[place] = surgeon.variable(f"{interface.logits}/mmbm_original")
    fed = next(tensor for tensor in surgeon.graph.inputs if tensor.name == interface.input)
    first = surgeon.new_graph("shadow")
    bounded = graft(surgeon, shadow, first, fed)
    name = surgeon.fresh_node("mmbm_logits")
    first.nodes.append(gs.Node("Identity", name=name, inputs=[bounded], outputs=[logits]))
    surgeon.graph.nodes[:0] = list(first.nodes)
    return surgeon.export()

"""A rough translation to operator set 14, good for nothing but inferring shapes.

From opset 14 on, shape inference follows a Reshape whose target is computed from another tensor's
shape, which is how ``x.view(x.size(0), -1)`` is exported; before, every shape after it is unknown.
So older models are inferred a second time under opset 14. Arguments that were attributes become
inputs. A node that is not translated is invalid there and infers nothing, never something wrong.
"""

from __future__ import annotations

import onnx

from mmbm_onnx.graph.walk import STANDARD_DOMAINS, attribute, graphs, standard_opset

MODERN = 14
_OLDEST = 9

# Operator to the attributes that became its inputs after the first, in their order.
_MOVED = {
    "Pad": ("pads",),
    "ReduceSum": ("axes",),
    "Slice": ("starts", "ends", "axes"),
    "Split": ("split",),
    "Squeeze": ("axes",),
    "Unsqueeze": ("axes",),
}


def modernise(proto: onnx.ModelProto) -> onnx.ModelProto | None:
    """A copy that imports opset 14, or None for a model too old, or new enough already.

    Args:
        proto: A model; not changed.
    """
    opset = standard_opset(proto.opset_import)
    if opset is None or not _OLDEST <= opset < MODERN:
        return None
    new = onnx.ModelProto()
    new.CopyFrom(proto)
    for entry in new.opset_import:
        if entry.domain in STANDARD_DOMAINS:
            entry.version = MODERN
    new.ir_version = max(new.ir_version, 8)  # initializers need not be inputs
    arguments: list[onnx.TensorProto] = []
    for _, graph in graphs(new.graph):
        for node in graph.node:
            if node.domain in STANDARD_DOMAINS:
                _translate(node, arguments)
    new.graph.initializer.extend(arguments)
    return new


def _translate(node: onnx.NodeProto, arguments: list[onnx.TensorProto]) -> None:
    if node.op_type == "Upsample" or (node.op_type == "Resize" and len(node.input) == 2):
        node.op_type = "Resize"
        node.input.insert(1, "")
        return
    given = [attribute(node, name) for name in _MOVED.get(node.op_type, ())]
    while given and given[-1] is None:
        given.pop()
    if not given:
        return
    for numbers in given:
        name = "" if numbers is None else f"mmbm_onnx.argument.{len(arguments)}"
        node.input.append(name)
        if numbers is not None:
            tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.INT64)
            tensor.dims.append(len(numbers))
            tensor.int64_data.extend(numbers)
            arguments.append(tensor)
    kept = [entry for entry in node.attribute if entry.name not in _MOVED[node.op_type]]
    del node.attribute[:]
    node.attribute.extend(kept)

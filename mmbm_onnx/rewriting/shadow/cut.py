"""A classifier cut off behind its logits."""

from __future__ import annotations

import onnx

from mmbm_onnx.graph.walk import ancestors, producers
from mmbm_onnx.types import Interface


def cut_at_logits(proto: onnx.ModelProto, interface: Interface) -> onnx.ModelProto:
    """What computes the logits, and nothing else: one input, one output, no metadata. Every node
    has a name of its own, which converters ask for.

    Args:
        proto: A model with weights inside; not changed.
        interface: Where its input and logits are. Both are float32.
    """
    needed = ancestors(proto.graph, [interface.logits])
    kinds = {info.name: info for info in (*proto.graph.value_info, *proto.graph.output)}
    logits = kinds.get(interface.logits)
    if logits is None:
        logits = onnx.helper.make_tensor_value_info(interface.logits, onnx.TensorProto.FLOAT, None)
    found = onnx.ModelProto(
        ir_version=proto.ir_version, opset_import=proto.opset_import, functions=proto.functions
    )
    graph = found.graph  # a graph that is made first would be copied, with all weights
    graph.name = proto.graph.name or "shadow"
    graph.node.extend(n for n in proto.graph.node if not needed.isdisjoint(n.output))
    graph.input.extend(info for info in proto.graph.input if info.name == interface.input)
    graph.output.append(logits)
    graph.initializer.extend(t for t in proto.graph.initializer if t.name in needed)
    for index, node in enumerate(graph.node):
        node.name = f"{node.op_type}_{index}"
    return found


def bare_logits(quantized: onnx.ModelProto) -> onnx.ModelProto:
    """A graph whose logits are not rounded to 256 values: without the pair of QuantizeLinear and
    DequantizeLinear in front of its output, if there is one.

    Args:
        quantized: A graph with one output; changed in place.
    """
    graph = quantized.graph
    made_by = producers(graph)
    output = graph.output[0].name
    last = made_by[output]
    before = made_by.get(last.input[0]) if last.op_type == "DequantizeLinear" else None
    if before is None or before.op_type != "QuantizeLinear":
        return quantized
    readers = [node for node in graph.node if before.output[0] in node.input]
    source = made_by.get(before.input[0])
    if len(readers) > 1 or source is None:
        return quantized
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == before.input[0]:
                    names[place] = output
    read = {name for node in graph.node for name in node.input}
    # What a quantizer takes out, such as a Clip, leaves its constants behind.
    left = [n for n in graph.node if n.op_type == "Constant" and n.output[0] not in read]
    for node in (last, before, *left):
        graph.node.remove(node)
    read = {name for node in graph.node for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    rest = onnx.GraphProto(initializer=kept)
    del graph.initializer[:]
    graph.initializer.extend(rest.initializer)
    return quantized

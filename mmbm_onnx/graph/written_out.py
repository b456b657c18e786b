"""Activations that exporters write out in several nodes.

They are found by their form, not by a list of patterns. All of it is made of a tensor x and scalars
alone:

- Swish, Gelu (arXiv 1606.08415), HardSwish (arXiv 1905.02244) and Mish are a Mul of which one side
  is a multiple of x and the other something limited: ``x * sigmoid(x)``,
  ``x / 2 * (1 + erf(x / sqrt 2))``, ``x * clip(x + 3, 0, 6) / 6``. A gate whose other side went
  through a convolution, as in squeeze and excitation, is no activation.
- Relu and LeakyRelu are a Max of x and 0, or of two multiples of x.
- LeakyRelu, Elu and Softplus are a Where between x and something else, by a comparison of x; Relu
  and ThresholdedRelu one between x and 0.
- Relu is also half of x + abs(x), and x times whether it is positive.

Constants filled with one number count as scalars; slopes may differ from channel to channel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import onnx

from mmbm_onnx.graph.gates import is_upper_half
from mmbm_onnx.graph.scopes import Scope
from mmbm_onnx.graph.walk import STANDARD_DOMAINS, consumed, inner_graphs

_LIMITED = frozenset({"Erf", "Sigmoid", "HardSigmoid", "Tanh"})
_FROM_BOTH_SIDES = frozenset({"Clip", "Max", "Min", "Relu"})
_ARITHMETIC = frozenset({"Add", "Div", "Mul", "Neg", "Pow", "Sub", "Sum"})
_SAME = frozenset({"Cast", "CastLike", "Identity"})
_MOVES = frozenset({"Expand", "Flatten", "Reshape", "Squeeze", "Tile", "Transpose", "Unsqueeze"})
_COMPARISONS = frozenset({"Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Not"})
_BENT = frozenset({"Elu", "Exp", "Log", "Softplus"})
_ELEMENTWISE = _LIMITED | _FROM_BOTH_SIDES | _ARITHMETIC | _SAME | _COMPARISONS | _BENT | {"Where"}
TELLTALE = _LIMITED | _COMPARISONS - {"Not"} | {"Abs", "Max", "Where"}
"""Operators that every form holds one of, or else an activation that is one node."""
# Of what these give nothing grows without limit, or it is a norm.
_OF_LIMITED_SIZE = _LIMITED | {"LogSoftmax", "ReduceL1", "ReduceL2", "Softmax", "Sqrt"}
_MOST_NODES = 24  # of one activation

_Read = tuple[str, list[onnx.NodeProto]]


@dataclass(frozen=True, slots=True)
class WrittenOut:
    """Activations of one graph that are written out.

    Attributes:
        ends: Tensor that carries the result, to the activation's name.
        inside: Tensors between x and the result, to the same.
    """

    ends: dict[str, str] = field(default_factory=dict)
    inside: dict[str, str] = field(default_factory=dict)


def written_out(scope: Scope) -> WrittenOut:
    """Find them all in a graph, not in its subgraphs."""
    found = WrittenOut()
    # What is read from outside: the graph's outputs, and what subgraphs capture.
    outputs = {info.name for info in scope.graph.output}
    for node in scope.graph.node:
        if any(inner_graphs(node)):
            outputs |= consumed(node)
    for node in scope.graph.node:
        if node.domain not in STANDARD_DOMAINS or node.op_type not in _FORMS:
            continue
        read = _FORMS[node.op_type](node, scope)
        if read is None:
            continue
        name, inner = read
        end = node.output[0]
        parts = [*inner, node]
        for made in inner:
            if _read_only_by(made.output[0], parts, outputs, scope):
                found.inside[made.output[0]] = name
        for scaled in _scalings(end, outputs, scope):
            found.inside[end] = name
            end = scaled
        found.ends[end] = name
    for tensor in found.inside:
        found.ends.pop(tensor, None)  # what is part of another is none of its own
    return found


def _read_only_by(
    tensor: str, parts: list[onnx.NodeProto], outputs: set[str], scope: Scope
) -> bool:
    made = {name for part in parts for name in part.output}
    readers = scope.consumers.get(tensor, [])
    return tensor not in outputs and all(made.intersection(node.output) for node in readers)


def _both_ways(names: Sequence[str]) -> list[tuple[str, str]]:
    """Two arguments, each as the first; none of another number of them."""
    return [(names[0], names[1]), (names[1], names[0])] if len(names) == 2 else []


def _product(node: onnx.NodeProto, scope: Scope) -> _Read | None:
    """``x * limited(x)``."""
    for value, gate in _both_ways(node.input):
        multiples = _rising(value, scope)
        for source in multiples:  # the value itself first
            nodes = _made_of(gate, source, scope)
            if not nodes or not _varies_inside(nodes, scope):
                continue
            if _limits(nodes):
                return _name(nodes), [*_makers(multiples, source, scope), *nodes]
            if not _is_switch(nodes) or _is_floor(node.output[0], source, scope):
                continue
            level = _level(gate, source, scope, holds=True)
            if level is not None and level >= 0:
                name = "ThresholdedRelu" if level else "Relu"
                return name, [*_makers(multiples, source, scope), *nodes]
    return None


def _sum(node: onnx.NodeProto, scope: Scope) -> _Read | None:
    """``x + abs(x)``."""
    for value, other in _both_ways(node.input):
        made = _maker(other, scope)
        if made is not None and made.op_type == "Abs" and made.input[0] == value:
            return "Relu", [made]
    return None


def _is_switch(nodes: list[onnx.NodeProto]) -> bool:
    """Whether these compute 0 or 1 from a comparison."""
    kinds = {node.op_type for node in nodes}
    return bool(kinds & _COMPARISONS) and kinds <= _COMPARISONS | _SAME


def _level(condition: str, source: str, scope: Scope, *, holds: bool) -> float | None:
    """The number above which a comparison of a tensor holds, or fails; None if it does not."""
    for _ in range(_MOST_NODES):
        node = _maker(condition, scope)
        if node is None:
            return None
        if node.op_type in _COMPARISONS - {"Not"}:
            sides = list(node.input)
            if node.op_type.startswith("Greater") != holds:
                sides.reverse()
            return scope.filled(sides[1]) if sides[0] == source else None
        if node.op_type not in _SAME | {"Not"}:
            return None
        holds = holds != (node.op_type == "Not")
        condition = node.input[0]
    return None


def _larger(node: onnx.NodeProto, scope: Scope) -> _Read | None:
    """``max(x, 0)`` and ``max(x, a x)``."""
    for value, other in _both_ways(node.input):
        if scope.filled(other) == 0 and scope.filled(value) is None:
            return None if _is_floor(node.output[0], value, scope) else ("Relu", [])
        multiples = _rising(other, scope)
        makers = _makers(multiples, value, scope) if value in multiples else []
        if any(maker.op_type in ("Mul", "Div") for maker in makers):
            return "LeakyRelu", makers
    return None


def _is_floor(tensor: str, source: str, scope: Scope) -> bool:
    """Whether a tensor is kept from falling below zero for other reasons than to be activated: it
    is limited from above as well, a norm, or a root is taken of it, as of a variance."""
    made = _maker(source, scope)
    if made is not None and made.op_type in _OF_LIMITED_SIZE:
        return True
    if made is not None and is_upper_half(made, scope):
        return True
    waiting, roots, count = [tensor], 0, 0
    while waiting:
        for reader in scope.readers(waiting.pop()):
            count += 1
            if _is_root(reader, scope):
                roots += 1
                continue
            free = [name for name in reader.input if scope.filled(name) is None]
            if reader.op_type in _MOVES | _SAME:
                free = free[:1]  # the others are shapes and axes
            elif reader.op_type not in ("Add", "Div", "Mul"):
                return False
            if len(free) != 1 or count > _MOST_NODES:
                return False
            waiting.append(reader.output[0])
    return roots > 0


def _is_root(node: onnx.NodeProto, scope: Scope) -> bool:
    if node.op_type != "Pow":
        return node.op_type == "Sqrt"
    exponent = scope.filled(node.input[1])
    return exponent is not None and abs(exponent) < 1


def _rising(name: str, scope: Scope) -> list[str]:
    """A tensor and those that it is a positive multiple of, nearest first."""
    multiples = _multiples(name, scope)
    for index, multiple in enumerate(multiples[:-1]):
        if not _positive(multiple, scope):
            return multiples[: index + 1]
    return multiples


def _positive(name: str, scope: Scope) -> bool:
    """Whether a multiple is made with a scalar above zero."""
    node = scope.producers.get(name)
    if node is None or node.op_type not in ("Mul", "Div"):
        return True
    numbers = [scope.filled(source) for source in node.input]
    return all(number is None or number > 0 for number in numbers)


def _choice(node: onnx.NodeProto, scope: Scope) -> _Read | None:
    """``x if x > a else something(x)``, or the other way round."""
    condition, first, _ = node.input
    for value, other in _both_ways(node.input[1:]):
        multiples = _rising(value, scope)
        if scope.filled(other) == 0:
            level = _level(condition, value, scope, holds=value == first)
            by = _made_of(condition, value, scope)
            floor = _is_floor(node.output[0], value, scope)
            if by and level is not None and level >= 0 and not floor:
                return "ThresholdedRelu" if level else "Relu", by
            continue
        for source in multiples:
            by = _made_of(condition, source, scope)
            nodes = _made_of(other, source, scope)
            if not by or not nodes or not {made.op_type for made in by} & _COMPARISONS:
                continue
            kinds = {made.op_type for made in nodes}
            if kinds & {"Softplus", "Log"}:
                name = "Softplus"
            elif kinds & {"Elu", "Exp"}:
                name = "Elu"
            elif _is_slope(other, source, scope, above=_is_above(node, value, source, scope)):
                name = "LeakyRelu"
            else:
                continue
            return name, [*_makers(multiples, source, scope), *by, *nodes]
    return None


def _is_above(node: onnx.NodeProto, value: str, source: str, scope: Scope) -> bool:
    """Whether a Where chooses a value for all that is large enough."""
    return _level(node.input[0], source, scope, holds=value == node.input[1]) is not None


def _is_slope(name: str, source: str, scope: Scope, *, above: bool) -> bool:
    """Whether a tensor is another times constants; unless the other is chosen above, no number
    among them may turn it upside down."""
    for _ in range(_MOST_NODES):
        if name == source:
            return True
        node = _maker(name, scope)
        if node is None:
            return False
        if node.op_type in _SAME:
            name = node.input[0]
            continue
        free = [other for other in node.input if not _is_constant(other, scope)]
        if node.op_type == "Neg" and above:
            (name,) = node.input
            continue
        if node.op_type not in ("Mul", "Div") or len(free) != 1:
            return False
        if not above and not _positive(name, scope):
            return False
        if node.op_type == "Div" and free[0] != node.input[0]:
            return False
        (name,) = free
    return False


def _makers(multiples: list[str], source: str, scope: Scope) -> list[onnx.NodeProto]:
    """The nodes that make the first of some multiples from a later one."""
    return [scope.producers[name] for name in multiples[: multiples.index(source)]]


def _maker(name: str, scope: Scope) -> onnx.NodeProto | None:
    """The node of the ONNX standard that makes a tensor."""
    node = scope.producers.get(name)
    return node if node is not None and node.domain in STANDARD_DOMAINS else None


def _multiples(name: str, scope: Scope) -> list[str]:
    """A tensor and those that it is a scalar multiple of, nearest first."""
    found = [name]
    while len(found) < _MOST_NODES and (node := _maker(found[-1], scope)) is not None:
        if node.op_type in _SAME:
            found.append(node.input[0])
        elif node.op_type in ("Mul", "Div") and (rest := _beside_scalar(node, scope)):
            found.append(rest)
        else:
            break
    return found


def _beside_scalar(node: onnx.NodeProto, scope: Scope) -> str | None:
    """What a Mul multiplies by a scalar, or a Div divides by one; None for any other."""
    first, second = node.input
    if scope.filled(second) is not None:
        return first
    if node.op_type == "Mul" and scope.filled(first) is not None:
        return second
    return None


def _is_constant(name: str, scope: Scope) -> bool:
    return scope.is_fixed(name) or scope.filled(name) is not None


def _made_of(name: str, source: str, scope: Scope) -> list[onnx.NodeProto] | None:
    """The nodes that compute a tensor from another and constants alone, element by element; None
    if more is in it."""
    nodes: dict[str, onnx.NodeProto] = {}
    waiting, reached = [name], False
    while waiting:
        tensor = waiting.pop()
        if tensor == source:
            reached = True
        elif tensor and tensor not in nodes and not _is_constant(tensor, scope):
            node = _maker(tensor, scope)
            if node is None or node.op_type not in _ELEMENTWISE or len(nodes) == _MOST_NODES:
                return None
            nodes[tensor] = node
            waiting.extend(node.input[:1] if node.op_type in _SAME else node.input)
    return list(nodes.values()) if reached else None


def _limits(nodes: list[onnx.NodeProto]) -> bool:
    """Whether what these compute is limited from above and below, as far as can be told."""
    kinds = {node.op_type for node in nodes}
    if kinds & {"Sigmoid", "HardSigmoid"}:
        return not _subtracted(nodes)
    if kinds & {"Erf", "Tanh"}:
        # Alone they are odd, and x times them even: part of an activation at most.
        return bool(kinds & {"Softplus", "Log"}) or _raised(nodes)
    return "Clip" in kinds or {"Relu", "Min"} <= kinds or {"Max", "Min"} <= kinds


def _varies_inside(nodes: list[onnx.NodeProto], scope: Scope) -> bool:
    """Whether factors that differ from channel to channel act on arguments of Sigmoid and its like
    only: elsewhere they may turn an activation upside down."""
    arguments = {name for node in nodes if node.op_type in _LIMITED for name in node.input}
    return all(
        node.output[0] in arguments
        for node in nodes
        if any(scope.is_fixed(name) and scope.filled(name) is None for name in node.input)
    )


def _raised(nodes: list[onnx.NodeProto]) -> bool:
    """Whether a scalar is added to what Erf or Tanh gives, or a multiple of it."""
    reached = {node.output[0] for node in nodes if node.op_type in ("Erf", "Tanh")}
    for _ in nodes:
        for node in nodes:
            if reached.intersection(node.input):
                if node.op_type in ("Add", "Sum"):
                    return True
                if node.op_type in {"Mul", "Div"} | _SAME:
                    reached.add(node.output[0])
    return False


def _subtracted(nodes: list[onnx.NodeProto]) -> bool:
    """Whether a sigmoid is subtracted from something: it then falls where x rises."""
    made = {node.output[0] for node in nodes if node.op_type in ("Sigmoid", "HardSigmoid")}
    return any(node.op_type == "Sub" and node.input[1] in made for node in nodes)


def _name(nodes: list[onnx.NodeProto]) -> str:
    kinds = {node.op_type for node in nodes}
    if "Softplus" in kinds or {"Exp", "Log"} & kinds:
        return "Mish"
    if kinds & {"Erf", "Tanh"}:
        return "Gelu"
    return "Swish" if "Sigmoid" in kinds else "HardSwish"


_FORMS = {"Add": _sum, "Max": _larger, "Mul": _product, "Where": _choice}


def _scalings(tensor: str, outputs: set[str], scope: Scope) -> Iterator[str]:
    """What becomes of a tensor that is read only to be scaled, step by step."""
    while tensor not in outputs:
        readers = scope.consumers.get(tensor, [])
        if len(readers) != 1 or readers[0].op_type not in ("Mul", "Div"):
            return
        if readers[0].domain not in STANDARD_DOMAINS:
            return
        if _beside_scalar(readers[0], scope) != tensor:
            return
        if not _positive(readers[0].output[0], scope):
            return
        tensor = readers[0].output[0]
        yield tensor

"""Which steps to run for given feeds and outputs, and when each value can be dropped."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mmbm_onnx.errors import ModelError
from mmbm_onnx.execution.steps import Step


@dataclass(frozen=True, slots=True)
class Node:
    """A step with everything that touches its surroundings by name.

    Attributes:
        step: The step.
        uses: Inputs and what its subgraphs capture from outside.
        defines: Outputs and every tensor inside its subgraphs.
    """

    step: Step
    uses: frozenset[str]
    defines: frozenset[str]


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in order.

    Attributes:
        nodes: Indices of the nodes to run.
        drop: For each of them, the names of the values that nothing later uses.
        stale: Constants that depend on a feed or a transform, so that they must be recomputed.
        uses: Names that the nodes read and the outputs.
    """

    nodes: tuple[int, ...]
    drop: tuple[tuple[str, ...], ...]
    stale: frozenset[str]
    uses: frozenset[str]


def make_plan(
    nodes: Sequence[Node],
    constants: Collection[str],
    folded: Mapping[str, int],
    available: Collection[str],
    fed: frozenset[str],
    outputs: Sequence[str],
    transformed: frozenset[str],
) -> Plan:
    """The ancestors of ``outputs`` that the feeds do not cut off.

    Args:
        nodes: All nodes in topological order.
        constants: Names whose values are known, folded ones included.
        folded: Constants computed from others, and the index of their node.
        available: Names that an enclosing graph supplies.
        fed: Names the caller gives values for.
        outputs: Names to compute.
        transformed: Names whose values are changed when produced.

    Raises:
        ModelError: A needed tensor is neither produced nor fed.
        UnsupportedOperatorError: A needed node cannot be executed.
    """
    stale: set[str] = set()
    for index in dict.fromkeys(folded.values()):
        node = nodes[index]
        if any(name in stale or name in fed or name in transformed for name in node.uses):
            stale |= node.defines
    known = (set(constants) - stale) | fed

    needed = {name for name in outputs if name not in known}
    chosen: list[int] = []
    for index in range(len(nodes) - 1, -1, -1):
        node = nodes[index]
        if needed.isdisjoint(node.defines):
            continue
        if node.step.error is not None:
            raise node.step.error
        chosen.append(index)
        needed -= node.defines
        needed |= {name for name in node.uses if name not in known}
    missing = sorted(needed - set(available))
    if missing:
        raise ModelError(f"tensor {missing[0]!r} is needed, but nothing produces it; feed it")
    chosen.reverse()

    last: dict[str, int] = {}
    for place, index in enumerate(chosen):
        for name in nodes[index].uses:
            last[name] = place
        for name in nodes[index].step.outputs:
            last.setdefault(name, place)
    drop: list[tuple[str, ...]] = [()] * len(chosen)
    kept = set(outputs)
    for name, place in last.items():
        if name and name not in kept:
            drop[place] = (*drop[place], name)
    uses = kept.union(*(nodes[index].uses for index in chosen))
    return Plan(tuple(chosen), tuple(drop), frozenset(stale), frozenset(uses))

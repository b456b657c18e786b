"""A graph, a branch or the body of a loop, compiled into steps that run on named torch tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count

import onnx
import torch

import mmbm_onnx.execution.operators  # noqa: F401  (registers the implementations)
from mmbm_onnx.errors import MmbmError, ModelError, UnsupportedOperatorError
from mmbm_onnx.execution.constants import promoted, tensor_from_proto
from mmbm_onnx.execution.operators.control import MOST_ROUNDS, Rounds
from mmbm_onnx.execution.planning import Node, Plan, make_plan
from mmbm_onnx.execution.steps import Step, make_step

Transform = Callable[[torch.Tensor], torch.Tensor]

# A floating-point constant of this many elements is worth a trip to the device.
_LARGE = 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """How values are computed: on which device, and whether halves become float32."""

    device: torch.device
    promote_half: bool


@dataclass(slots=True)
class Scope:
    """The values known while a program runs, and those of the enclosing program."""

    program: Program
    stale: frozenset[str]
    values: dict[str, torch.Tensor]
    outer: Scope | None = None

    def find(self, name: str) -> Scope | None:
        """The innermost scope that knows ``name``, if there is one."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope.values:
                return scope
            if name in scope.program.constants and name not in scope.stale:
                return scope
            scope = scope.outer
        return None

    def owner(self, name: str) -> Scope:
        """The innermost scope that knows ``name``."""
        scope = self.find(name)
        if scope is None:
            raise ModelError(
                f"tensor {name!r} has no value; the branch that computes it was not run"
            )
        return scope

    def value(self, name: str) -> torch.Tensor:
        """The tensor where it lies."""
        scope = self.owner(name)
        found = scope.values.get(name)
        return scope.program.constants[name] if found is None else found

    def value_on_device(self, name: str) -> torch.Tensor:
        """The tensor on the settings' device; constants are copied there only once."""
        scope = self.owner(name)
        found = scope.values.get(name)
        if found is not None:
            return found.to(self.program.settings.device)
        return scope.program.constant_on_device(name)


@dataclass(slots=True)
class Request:
    """What one call of the executor asks for; the same for all its scopes."""

    fed: Mapping[str, torch.Tensor]
    outputs: frozenset[str]
    transforms: Mapping[str, Transform]
    optional: frozenset[str] = frozenset()
    collected: dict[str, torch.Tensor] = field(default_factory=dict)
    rounds: Iterator[int] = field(default_factory=lambda: count(1))  # of all loops together

    def transformed(self, name: str, value: torch.Tensor) -> torch.Tensor:
        """The value after the transform of that name, if there is one."""
        transform = self.transforms.get(name)
        return value if transform is None else transform(value)


class Program:
    """A compiled graph.

    Attributes:
        names: Every tensor name of the graph and of the graphs inside it.
        constants: CPU tensors of initializers and of everything that depends on them alone.
        free: Names the graph takes from the enclosing one.
        inputs: Names of the graph's inputs that have no value of their own, in order.
        results: Names of the graph's outputs.
        settings: Device and precision.
    """

    def __init__(
        self,
        graph: onnx.GraphProto,
        initializers: Mapping[str, onnx.TensorProto],
        opsets: Mapping[str, int],
        settings: Settings,
    ) -> None:
        self.settings = settings
        self.results = tuple(value.name for value in graph.output)
        self.constants: dict[str, torch.Tensor] = {}
        self._unreadable: dict[str, MmbmError] = {}
        self._folded: dict[str, int] = {}
        self._on_device: dict[str, torch.Tensor] = {}
        self._plans: dict[object, Plan] = {}
        self._branches: list[dict[str, Program]] = []
        self._nodes: list[Node] = []
        for name, tensor in initializers.items():
            try:
                self.constants[name] = tensor_from_proto(tensor, settings.promote_half)
            except MmbmError as error:
                self._unreadable[name] = error
        self.inputs = tuple(value.name for value in graph.input if value.name not in initializers)
        self.names = set(self.inputs) | set(initializers)
        free: set[str] = set()
        for proto in graph.node:
            step = make_step(proto, opsets, settings.promote_half)
            branches = {
                name: Program(
                    inner, {tensor.name: tensor for tensor in inner.initializer}, opsets, settings
                )
                for name, inner in step.subgraphs.items()
            }
            uses = {name for name in step.inputs if name}
            defines = {name for name in step.outputs if name}
            for branch in branches.values():
                uses |= branch.free
                defines |= branch.names
            free |= uses - self.names
            self.names |= defines
            self._nodes.append(Node(step, frozenset(uses), frozenset(defines)))
            self._branches.append(branches)
        self.free: frozenset[str] = frozenset(free | (set(self.results) - self.names))
        self._fold()
        self._lay_out()

    def _fold(self) -> None:
        """Compute once what depends on constants alone."""
        for index, node in enumerate(self._nodes):
            step = node.step
            if step.error is not None or step.subgraphs:
                continue
            if not all(name in self.constants for name in node.uses):
                continue
            try:
                inputs = [self.constants[name] if name else None for name in step.inputs]
                values = step.named(step.call(inputs))
            except MmbmError:
                # Left to run, where the same error names the node if its result is needed.
                continue
            for name, value in values.items():
                self.constants[name] = promoted(value, self.settings.promote_half)
                self._folded[name] = index

    def _lay_out(self) -> None:
        """Lay the weights of convolutions out with channels last, on the CPU.

        Its kernels are faster on that layout, there and back, and their results have it, so that
        what follows a convolution has it as well.
        """
        if self.settings.device.type != "cpu":
            return
        for node in self._nodes:
            view = node.step.view
            if view is None or view.op_type != "Conv" or len(view.inputs) < 2:
                continue
            weight = self.constants.get(view.inputs[1])
            if weight is not None and weight.ndim == 4 and weight.is_floating_point():
                self.constants[view.inputs[1]] = weight.to(memory_format=torch.channels_last)

    def constant_on_device(self, name: str) -> torch.Tensor:
        """The constant on the settings' device, copied there on first use."""
        value = self.constants[name]
        if value.device == self.settings.device:
            return value
        if name not in self._on_device:
            # Outside inference mode, so that the copy can take part in autograd later.
            with torch.inference_mode(False):
                self._on_device[name] = value.to(self.settings.device)
        return self._on_device[name]

    def plan(
        self, fed: frozenset[str], outputs: tuple[str, ...], request: Request, inner: bool
    ) -> Plan:
        """The steps for these outputs, remembered for the next call.

        Raises:
            ModelError: A needed tensor is neither produced nor fed, or cannot be read.
            UnsupportedOperatorError: A needed node cannot be executed.
        """
        transformed = frozenset(request.transforms)
        key = (fed, outputs, transformed)
        plan = self._plans.get(key)
        if plan is None:
            # What the main graph takes from outside does not exist.
            available = set(self._unreadable) | (self.free if inner else frozenset())
            plan = make_plan(
                self._nodes, self.constants, self._folded, available, fed, outputs, transformed
            )
            for name in sorted(plan.uses & set(self._unreadable) - fed):
                raise self._unreadable[name]
            self._plans[key] = plan
        return plan

    def run(
        self,
        request: Request,
        outer: Scope | None = None,
        arguments: Sequence[torch.Tensor] = (),
    ) -> list[torch.Tensor]:
        """Run what ``request`` needs of this graph.

        Requested tensors are put into ``request.collected``. ``arguments`` are the values of the
        graph's inputs, if it is the body of a loop.

        Returns:
            The values of the graph's own outputs, in order, if this is an inner graph; else
            nothing.
        """
        fed = dict(zip(self.inputs, arguments, strict=True)) if arguments else {}
        fed |= {name: value for name, value in request.fed.items() if name in self.names}
        wanted = tuple(sorted(request.outputs & self.names))
        results = self.results if outer is not None else ()
        outputs = tuple(dict.fromkeys(results + wanted))
        plan = self.plan(frozenset(fed), outputs, request, inner=outer is not None)
        scope = Scope(self, plan.stale, {}, outer)
        for name, value in fed.items():
            scope.values[name] = request.transformed(name, value)
        for name in plan.uses & self.constants.keys() & request.transforms.keys():
            if name not in plan.stale and name not in fed:
                scope.values[name] = request.transformed(name, self.constant_on_device(name))
        for index, drop in zip(plan.nodes, plan.drop, strict=True):
            self._run_node(index, scope, request)
            for name in drop:
                scope.values.pop(name, None)
        for name in wanted:
            if name in request.optional and scope.find(name) is None:
                continue
            if name not in request.collected:
                request.collected[name] = scope.value(name)
        return [scope.value(name) for name in results]

    def _run_node(self, index: int, scope: Scope, request: Request) -> None:
        step = self._nodes[index].step
        result = step.call(self._inputs(step, scope))
        branches = self._branches[index]
        if isinstance(result, Rounds):
            result = self._loop(branches["body"], result, step, scope, request)
        elif branches:
            # An operator with subgraphs answers with the name of the one to run.
            assert isinstance(result, str)
            result = tuple(branches[result].run(request, scope))
        for name, value in step.named(result).items():
            if name not in request.fed:
                value = promoted(value, self.settings.promote_half)
                scope.values[name] = request.transformed(name, value)

    def _loop(
        self, body: Program, start: Rounds, step: Step, scope: Scope, request: Request
    ) -> tuple[torch.Tensor, ...]:
        """Final carried values, then what each round gave, stacked; requested tensors of the body
        are collected one round after the other along axis 0.

        Raises:
            UnsupportedOperatorError: Too many rounds, or none where there is something to stack.
        """
        carried = list(start.carried)
        given: list[list[torch.Tensor]] = []
        collected: dict[str, list[torch.Tensor]] = {}
        go, done = start.go, 0
        while go and (start.most is None or done < start.most):
            if next(request.rounds) > MOST_ROUNDS:
                raise UnsupportedOperatorError(
                    f"{step.label}: loops run more than {MOST_ROUNDS} rounds in all"
                )
            inner = replace(request, collected={})
            values = body.run(inner, scope, [torch.tensor(done), torch.tensor(True), *carried])
            go = bool(values[0].reshape(()).item())
            carried = values[1 : 1 + len(carried)]
            given.append(values[1 + len(carried) :])
            for name, value in inner.collected.items():
                collected.setdefault(name, []).append(value)
            done += 1
        if not given and len(step.outputs) > len(carried):
            raise UnsupportedOperatorError(
                f"{step.label}: runs no round, so the shape of what they would give is not known"
            )
        for name, parts in collected.items():
            if name not in request.collected:
                request.collected[name] = torch.cat(parts) if parts[0].ndim else torch.stack(parts)
        return (*carried, *(torch.stack(parts) for parts in zip(*given, strict=True)))

    def _inputs(self, step: Step, scope: Scope) -> list[torch.Tensor | None]:
        values = [scope.value(name) if name else None for name in step.inputs]
        if self.settings.device.type == "cpu":
            return values
        assert step.operator is not None
        host = step.operator.host
        together = any(
            _belongs_on_device(value)
            for place, value in enumerate(values)
            if value is not None and place not in host
        )
        for place, (name, value) in enumerate(zip(step.inputs, values, strict=True)):
            if value is None:
                continue
            if place in host:
                values[place] = value.cpu()
            elif together:
                values[place] = scope.value_on_device(name)
        return values


def _belongs_on_device(value: torch.Tensor) -> bool:
    if value.device.type != "cpu":
        return True
    return value.is_floating_point() and value.numel() >= _LARGE


def check_names(program: Program, names: Sequence[str], what: str) -> None:
    """Refuse names that the graph does not have.

    Raises:
        ModelError: Naming the first of them.
    """
    for name in names:
        if name not in program.names:
            raise ModelError(f"the graph has no tensor {name!r} to {what}")

"""The executor: any tensor of an ONNX graph from any others, differentiably, in torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx
import torch

from mmbm_onnx.execution.constants import promoted
from mmbm_onnx.execution.expansion import expand
from mmbm_onnx.execution.program import Program, Request, Settings, Transform, check_names


class GraphExecutor:
    """Runs an ONNX graph as differentiable torch code.

    Tensors are addressed by their ONNX names, those inside If branches included. Weights never
    require gradients; gradients flow to the feeds and through the transforms. Integer values that
    do not depend on the feeds' contents (shapes and what is computed from them) stay on the CPU,
    so that reading them never waits for the device; everything else lives on ``device``.

    Args:
        proto: The model, with all data in memory. It is neither changed nor kept.
        device: Where to compute, such as ``"cpu"`` or ``"cuda:0"``.
        promote_half: Compute float16 and bfloat16 tensors in float32; such outputs are then
            float32.

    Raises:
        ModelError: The graph's functions cannot be inlined.
        UnsupportedOperatorError: The graph has sparse initializers.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        *,
        device: str | torch.device = "cpu",
        promote_half: bool = True,
    ) -> None:
        expanded = expand(proto)
        # With its index, so that it compares equal to the device of the tensors on it.
        self.device = torch.empty(0, device=device).device
        self.promote_half = promote_half
        settings = Settings(self.device, promote_half)
        # Outside inference mode, so that constants can take part in autograd later.
        with torch.inference_mode(False), torch.no_grad():
            self._program = Program(expanded.graph, expanded.constants, expanded.opsets, settings)

    def run(
        self,
        feeds: Mapping[str, torch.Tensor],
        outputs: Sequence[str],
        *,
        transforms: Mapping[str, Transform] | None = None,
        optional: Collection[str] = (),
    ) -> dict[str, torch.Tensor]:
        """Compute ``outputs`` from ``feeds``, running only the nodes between the two.

        Args:
            feeds: Values by name, of graph inputs or of any other tensor; what only leads up to
                fed tensors is not run. They are moved to the device.
            outputs: Names of the tensors to return.
            transforms: Functions by tensor name, each applied to that tensor as soon as its value
                is known (produced, fed or constant). Later nodes see the transformed value, and
                it is what is returned. Those of tensors that are not needed are not called.
            optional: Those of the outputs that may lie in an If branch that is not taken.

        Returns:
            The outputs by name, without optional ones that were not computed.

        Raises:
            ModelError: A name is unknown, a needed tensor is neither produced nor fed, lies in an
                If branch that was not taken and is not optional, or a node failed.
            UnsupportedOperatorError: A needed node cannot be executed; it is named.
        """
        transforms = {} if transforms is None else transforms
        check_names(self._program, list(feeds), "feed")
        check_names(self._program, list(outputs), "return")
        check_names(self._program, list(transforms), "transform")
        admitted = {
            name: promoted(value, self.promote_half).to(self.device)
            for name, value in feeds.items()
        }
        request = Request(admitted, frozenset(outputs), transforms, frozenset(optional))
        self._program.run(request)
        left_out = request.optional - request.collected.keys()
        return {name: request.collected[name] for name in outputs if name not in left_out}

"""A classifier's logits in torch, with differentiable bounds on its activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import overload

import onnx
import torch
from torch import Tensor

from mmbm_onnx.errors import DataError, ModelError
from mmbm_onnx.execution.bounding import bounded
from mmbm_onnx.execution.constants import promoted
from mmbm_onnx.execution.executor import GraphExecutor
from mmbm_onnx.execution.points import Points
from mmbm_onnx.execution.registry import TORCH_DTYPES
from mmbm_onnx.types import Interface, Site

Results = dict[str, Tensor]

# How closely batched groups must follow groups run one by one (float32 sums in another order).
_AGREEMENT = 1e-4


class Classifier:
    """An ONNX classifier as a differentiable function of its samples and of its bounds.

    A model whose batch axis has a fixed length is run on groups of that many samples, all at once
    through ``torch.func.vmap`` where that gives the same result as group by group, otherwise group
    by group. The last group is filled up with copies of the last sample.

    Attributes:
        interface: How the model is fed and read.
        sites: Activations that can be bounded, by tensor name.
        device: Where it computes.
        dtype: What samples are given in: the model's input dtype, float32 for halves.
        executor: Gives access to any other tensor of the graph.

    Args:
        proto: The model, with all data in memory; not changed.
        interface: Its one sample input and its logits.
        sites: Activations that ``bounds`` may name.
        device: Such as ``"cpu"`` or ``"cuda"``.

    Raises:
        ModelError: The graph cannot be made ready.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        interface: Interface,
        sites: Sequence[Site],
        device: str | torch.device = "cpu",
    ) -> None:
        self.interface = interface
        self.sites = {site.tensor: site for site in sites}
        self.executor = GraphExecutor(proto, device=device)
        self.device = self.executor.device
        element = onnx.helper.np_dtype_to_tensor_dtype(interface.input_dtype)
        self.dtype = promoted(torch.empty(0, dtype=TORCH_DTYPES[element]), True).dtype
        # None: not tried yet.
        self._mappable: bool | None = None

    @property
    def batches_groups(self) -> bool | None:
        """Whether groups of a fixed batch run all at once; None before more than one was seen."""
        return self._mappable

    @torch.no_grad()
    def points(self, x: Tensor, batch_size: int) -> Points:
        """Where samples stand: themselves, or what integers are embedded as.

        Args:
            x: As ``logits`` has it.
            batch_size: Samples per forward pass.

        Raises:
            DataError, ModelError: As ``logits`` does, or axis 0 of what the integers are embedded
                as is not the batch.
        """
        x = x.to(self.device, self.dtype)
        start = self.interface.start
        if start is None:
            return Points(x)
        run = self._runner({}, [start])
        parts = []
        for batch in torch.split(x, batch_size):
            values = self._grouped(run, {self.interface.input: batch})[start]
            if values.ndim == 0 or len(values) != len(batch):
                raise ModelError(
                    f"input {self.interface.input!r} is embedded as {start!r}, which has shape "
                    f"{tuple(values.shape)} for a batch of {len(batch)}: its axis 0 is not the "
                    "batch, so samples cannot be attacked one by one; give the embedded values as "
                    "the input"
                )
            parts.append(values)
        points = Points(torch.cat(parts), x)
        self._check_apart(run, points[:batch_size])
        return points

    def _check_apart(self, run: Callable[[Results], Results], points: Points) -> None:
        """Make sure that each value belongs to its sample: they change places together."""
        start = self.interface.start
        assert start is not None and points.samples is not None
        moved = {self.interface.input: points.samples.roll(1, 0)}
        if not torch.allclose(
            self._grouped(run, moved)[start], points.values.roll(1, 0), rtol=1e-3, atol=1e-5
        ):
            raise ModelError(
                f"input {self.interface.input!r} is embedded as {start!r}, whose axis 0 is not the "
                "batch, so samples cannot be attacked one by one; give the embedded values as the "
                "input"
            )

    @overload
    def logits(self, x: Tensor | Points, bounds: Mapping[str, Tensor] | None = None) -> Tensor: ...

    @overload
    def logits(
        self,
        x: Tensor | Points,
        bounds: Mapping[str, Tensor] | None = None,
        *,
        taps: Sequence[str],
    ) -> tuple[Tensor, Results]: ...

    def logits(
        self,
        x: Tensor | Points,
        bounds: Mapping[str, Tensor] | None = None,
        *,
        taps: Sequence[str] | None = None,
    ) -> Tensor | tuple[Tensor, Results]:
        """Logits of samples, before any softmax.

        Args:
            x: Samples ``(n, *input shape without batch)``, n > 0, moved to the device and
                ``dtype``; or points made of such.
            bounds: Site name to its upper bounds, ``(channels,)`` or ``()``, in the unit of the
                activation; gradients flow to them. Sites left out are not bounded.
            taps: Names of tensors to return as well, after their bounds. Those in an If branch that
                no sample takes are left out; where some groups of a fixed batch take it, only the
                entries of their samples are there.

        Returns:
            Logits ``(n, classes)``; with ``taps`` also the tensors by name, their axis 0 running
            over the samples as in the graph. (Of a tensor whose axis 0 is not a whole number of
            entries per sample, the entries of copies that fill up a fixed batch are included.)

        Raises:
            DataError: ``x`` is empty.
            ModelError: A name is unknown, a bound does not fit its site, a node fails, or the
                logits are not ``(n, classes)``.
            UnsupportedOperatorError: The logits need an operator that cannot be executed.
        """
        feeds = self._feeds(x)
        if any(value.ndim == 0 or len(value) == 0 for value in feeds.values()):
            raise DataError("no samples to run the model on")
        names = list(dict.fromkeys([self.interface.logits, *(taps or ())]))
        run = self._runner(bounds or {}, names)
        values = self._grouped(run, feeds)
        logits = values[self.interface.logits]
        if self.interface.single and logits.shape == (len(x), 1):
            logits = torch.cat([-logits / 2, logits / 2], 1)
        if logits.ndim > 2 and logits.shape[2:].numel() == 1:
            logits = logits.flatten(1)
        if logits.shape != (len(x), self.interface.classes):
            raise ModelError(
                f"logits {self.interface.logits!r} have shape {tuple(logits.shape)}, expected "
                f"{(len(x), self.interface.classes)}; name another tensor as logits"
            )
        if taps is None:
            return logits
        return logits, {name: values[name] for name in taps if name in values}

    def _feeds(self, x: Tensor | Points) -> Results:
        """Values by the tensor they are fed as, all with one entry per sample."""
        face = self.interface
        points = x if isinstance(x, Points) else Points(x.to(self.device, self.dtype))
        if points.samples is None:
            return {face.input: points.values}
        assert face.start is not None
        return {face.start: points.values, face.input: points.samples}

    def _runner(
        self, bounds: Mapping[str, Tensor], names: list[str]
    ) -> Callable[[Results], Results]:
        transforms = {name: self._bounding(name, bound) for name, bound in bounds.items()}

        optional = [name for name in names if name != self.interface.logits]

        def run(feeds: Results) -> Results:
            return self.executor.run(feeds, names, transforms=transforms, optional=optional)

        return run

    def _bounding(self, name: str, bound: Tensor) -> Callable[[Tensor], Tensor]:
        site = self.sites.get(name)
        if site is None:
            raise ModelError(f"tensor {name!r} is not a site, so it cannot be bounded")
        if bound.ndim > 1 or (bound.ndim == 1 and site.channel_axis is None):
            raise ModelError(
                f"bound of {name!r} has shape {tuple(bound.shape)}, expected "
                + ("()" if site.channel_axis is None else "() or (channels,)")
            )

        def apply(value: Tensor) -> Tensor:
            limit = bound.to(value.device, value.dtype)
            if bound.ndim == 1:
                assert site.channel_axis is not None
                if value.shape[site.channel_axis] != len(bound):
                    raise ModelError(
                        f"{len(bound)} bounds for {name!r}, which has "
                        f"{value.shape[site.channel_axis]} channels"
                    )
                shape = [1] * value.ndim
                shape[site.channel_axis] = len(bound)
                limit = limit.reshape(shape)
            return bounded(value, limit)

        return apply

    def _grouped(self, run: Callable[[Results], Results], feeds: Results) -> Results:
        size, samples = self.interface.batch, len(next(iter(feeds.values())))
        if size is None or samples == size:
            return run(feeds)
        groups = {name: _in_groups(value, size) for name, value in feeds.items()}
        count = -(-samples // size)
        if count > 1 and self._mappable is None:
            self._mappable = _can_map(
                run, [_group(groups, index, detached=True) for index in (0, 1)]
            )
        if count > 1 and self._mappable:
            values = torch.func.vmap(run)(groups)
        else:
            values = _stacked([run(_group(groups, index)) for index in range(count)])
        return {name: _samples_first(value, size, samples) for name, value in values.items()}


def _in_groups(x: Tensor, size: int) -> Tensor:
    """``(groups, size, ...)``, the last one filled up with copies of the last sample."""
    missing = -len(x) % size
    padded = torch.cat([x, x[-1:].expand(missing, *x.shape[1:])]) if missing else x
    return padded.reshape(-1, size, *x.shape[1:])


def _group(groups: Results, index: int, *, detached: bool = False) -> Results:
    return {
        name: value[index].detach() if detached else value[index] for name, value in groups.items()
    }


def _samples_first(value: Tensor, size: int, samples: int) -> Tensor:
    """``(groups, entries, ...)`` as ``(groups * entries, ...)`` without those of padding."""
    if value.ndim < 2:
        return value
    entries = value.shape[1]
    joined = value.flatten(0, 1)
    return joined[: samples * (entries // size)] if entries % size == 0 else joined


def _stacked(parts: Sequence[Results]) -> Results:
    """Each tensor of all groups that have it, one group after the other on a new first axis."""
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: torch.stack([part[name] for part in parts if name in part]) for name in names}


@torch.no_grad()
def _can_map(run: Callable[[Results], Results], groups: Sequence[Results]) -> bool:
    """Whether all groups at once give what each gives alone.

    Raises:
        ModelError: A group fails even alone.
    """
    alone = _stacked([run(group) for group in groups])
    try:
        together = torch.func.vmap(run)(_stacked(groups))
    except (ModelError, RuntimeError):
        # An operator whose result has a shape or a branch that depends on the samples.
        return False
    for name, theirs in alone.items():
        ours = together[name]
        if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
            return False
        if not theirs.is_floating_point():
            if not torch.equal(ours, theirs):
                return False
            continue
        scale = theirs.abs().nan_to_num(0.0, 0.0, 0.0).max() if theirs.numel() else 1.0
        if not torch.allclose(
            ours, theirs, rtol=_AGREEMENT, atol=_AGREEMENT * float(scale), equal_nan=True
        ):
            return False
    return True

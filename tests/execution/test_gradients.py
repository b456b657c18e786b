"""Values and gradients of exported torch functions against torch's own."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmbm_onnx.execution.executor import GraphExecutor

INDEX = torch.tensor([2, 0, -1])
TABLE = torch.linspace(-1, 1, 24).reshape(4, 6)

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "arithmetic": lambda x: (x + 2) * x - x / 3 + 1 / (x + 9) - (-x),
    "powers": lambda x: x**2 + (x + 9) ** 0.5 + torch.sqrt(x + 9) + x.abs() ** 3,
    "exponentials": lambda x: torch.exp(x) + torch.log(x + 9) + torch.erf(x),
    "trigonometry": lambda x: torch.sin(x) + torch.cos(x) * torch.atan(x) + torch.tan(x / 9),
    "saturating": lambda x: torch.tanh(x) + F.softsign(x) * torch.atan(x / 2),
    "extremes": lambda x: torch.maximum(x, x.flip(1)) + torch.minimum(x, x * 0.5 + 0.1),
    "clamp": lambda x: x.clamp(-0.5, 0.7) + x.clamp(min=0.1) + F.relu6(x * 4),
    "rectifiers": lambda x: F.relu(x) + F.leaky_relu(x, 0.2) + F.elu(x) + F.selu(x) + F.celu(x),
    "sigmoids": lambda x: torch.sigmoid(x) + F.silu(x) + F.hardsigmoid(x) + F.hardswish(x),
    "smooth": lambda x: F.softplus(x) + F.gelu(x) + F.mish(x) + F.gelu(x, approximate="tanh"),
    "prelu": lambda x: F.prelu(x, torch.tensor([0.1, 0.2, 0.3, 0.4])),
    "softmax": lambda x: F.softmax(x, 1) + F.log_softmax(x, -1) + F.softmax(x, 2),
    "sums": lambda x: x.sum(1) + x.mean((1,)) + x.logsumexp(1) + x.norm(dim=1) + x.prod(1),
    "maxima": lambda x: x.amax((1, 2)) - x.amin((1, 2)) + x.max(2).values.sum(1),
    "running": lambda x: x.cumsum(1) + x.cumsum(-1),
    "selection": lambda x: torch.where(x > 0.2, x * 2, -x) + x.masked_fill(x < 0, 3.0),
    "reshaping": lambda x: x.reshape(x.shape[0], -1).unsqueeze(2).transpose(1, 2).squeeze(1),
    "joining": lambda x: torch.cat([x, x * 2], 1) + torch.stack([x, -x], 1).flatten(1, 2),
    "cutting": lambda x: torch.cat(list(x.split([1, 3], 1))[::-1], 1) + torch.cat(x.chunk(2, 2), 2),
    "slicing": lambda x: x[:, 1:, ::2] + x[:, :-1, 1::2] * x[:, -3:, :3],
    "repeating": lambda x: x.repeat(1, 2, 1) + x[:, :1].expand(-1, 8, -1),
    "gathering": lambda x: x[:, INDEX] + x.index_select(1, torch.tensor([0, 0, 3])),
    "elementwise gathering": lambda x: x.gather(1, torch.zeros(2, 2, 6, dtype=torch.int64) + 1),
    "scattering": lambda x: x.scatter(1, torch.zeros(2, 1, 6, dtype=torch.int64), x[:, 1:2] * 3),
    "products": lambda x: x @ x.transpose(1, 2) + torch.einsum("bij,bkj->bik", x, TABLE * x),
    "linear": lambda x: F.linear(x.flatten(1), torch.linspace(-1, 1, 72).reshape(3, 24)),
    "triangles": lambda x: torch.tril(x) + torch.triu(x, 1) * 2,
    "top": lambda x: x.topk(3, 2).values + x.sort(2, descending=True).values[:, :, 3:],
}


def exported(function: Callable[[Tensor], Tensor], x: Tensor, dynamo: bool) -> onnx.ModelProto:
    class Wrapped(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return function(x)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            program = torch.onnx.export(Wrapped().eval(), (x,), dynamo=True, verbose=False)
            assert program is not None
            return program.model_proto
        buffer = io.BytesIO()
        torch.onnx.export(Wrapped().eval(), (x,), buffer, dynamo=False, opset_version=17)
    return onnx.load_from_string(buffer.getvalue())


def assert_equal_to_torch(
    function: Callable[[Tensor], Tensor], model: onnx.ModelProto, x: Tensor
) -> None:
    (name,) = (value.name for value in model.graph.input)
    output = model.graph.output[0].name
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    actual, expected = GraphExecutor(model).run({name: ours}, [output])[output], function(theirs)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    weights = torch.linspace(0.5, 1.5, expected.numel()).reshape(expected.shape)
    (actual * weights).sum().backward()
    (expected * weights).sum().backward()
    assert theirs.grad is not None
    assert theirs.grad.abs().max() > 0
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


def sample() -> Tensor:
    return torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_torchscript_exports(name: str) -> None:
    function, x = FUNCTIONS[name], sample()
    assert_equal_to_torch(function, exported(function, x, dynamo=False), x)


@pytest.mark.parametrize("name", ["sums", "selection", "slicing", "gathering", "smooth"])
def test_default_exports(name: str) -> None:
    pytest.importorskip("onnxscript")
    function, x = FUNCTIONS[name], sample()
    assert_equal_to_torch(function, exported(function, x, dynamo=True), x)

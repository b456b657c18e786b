"""Small networks of many kinds, exported by torch, against ONNX Runtime and native autograd."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from architectures import EXPORTS, NETWORKS, network
from exports import exported

from mmbm_onnx.execution.executor import GraphExecutor


@pytest.mark.parametrize(("name", "opset"), EXPORTS)
def test_network(name: str, opset: int | None) -> None:
    proto = exported(network(name), torch.randn(2, *NETWORKS[name][1]), opset)
    output = proto.graph.output[0].name
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    executor, module = GraphExecutor(proto), network(name)
    for batch in (1, 5):
        x = torch.randn(batch, *NETWORKS[name][1], generator=torch.Generator().manual_seed(batch))
        (expected,) = session.run(None, {"x": x.numpy()})
        leaf = x.clone().requires_grad_()
        ours = executor.run({"x": leaf}, [output])[output]
        assert np.abs(ours.detach().numpy() - expected).max() <= 1e-5 * max(
            1.0, np.abs(expected).max()
        )

        native_leaf = x.clone().requires_grad_()
        native = module(native_leaf)
        weight = torch.randn(native.shape, generator=torch.Generator().manual_seed(9))
        (gradient,) = torch.autograd.grad((ours * weight).sum(), leaf)
        (wanted,) = torch.autograd.grad((native * weight).sum(), native_leaf)
        assert wanted.abs().max() > 0
        torch.testing.assert_close(gradient, wanted, rtol=1e-3, atol=1e-5)

"""Defences that change weights: that they do what they are named after."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from benchmarks.defence import measures, networks, victims
from benchmarks.defence.peers import PEERS, anp, ft_sam, pruning, tuning

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def clean_samples(network: nn.Module, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise, and what the network makes of it: it is right everywhere."""
    x = np.random.default_rng(0).uniform(0, 1, (count, 1, 28, 28)).astype(np.float32)
    with torch.no_grad():
        return x, network.eval()(torch.from_numpy(x)).argmax(1).numpy()


def on_eight_channels() -> nn.Module:
    """A network whose decisions, of several classes, hang on eight of the last channels alone."""
    network = networks.build("plain", 1, 10, 0).eval()
    head = network[-1]
    with torch.no_grad():
        head.weight[:, 8:] = 0
        head.weight[:, :8] *= 30
        x, _ = clean_samples(network, 60)
        head.bias -= network(torch.from_numpy(x)).mean(0)
    assert len(set(clean_samples(network, 40)[1])) > 3
    return network


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("network", networks.NAMES)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_peers_change_a_network_that_still_exports(
    peer, network, device, tmp_path, monkeypatch
) -> None:
    monkeypatch.setattr(anp, "_STEPS", 3)
    monkeypatch.setattr(ft_sam, "_EPOCHS", 1)
    monkeypatch.setattr(tuning.fine_tuning, "__defaults__", (1,))
    rng = np.random.default_rng(0)
    x = rng.uniform(0, 1, (51, 1, 28, 28)).astype(np.float32)
    y = (np.arange(51) % 10).astype(np.int64)
    net = networks.build(network, 1, 10, 0).eval()
    with torch.no_grad():
        before = net(torch.from_numpy(x)).numpy()
    repaired = PEERS[peer](net.to(device), x, y, 0).cpu()
    assert not repaired.training
    victims.export(repaired, (1, 28, 28), tmp_path / "m.onnx")
    found = measures.answers(tmp_path / "m.onnx", x)["logits"]
    with torch.no_grad():
        after = repaired(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(found, after, atol=1e-3)
    if peer != "anp":  # three steps prune nothing
        assert np.abs(after - before).max() > 1e-5


def test_fine_pruning_takes_the_most_silent_channels_and_no_more_than_accuracy_bears(
    monkeypatch,
) -> None:
    monkeypatch.setattr(pruning, "fine_tuning", lambda network, *_: network)
    network = on_eight_channels()
    last = networks.activations(network)[-1]
    x, y = clean_samples(network, 40)
    seen: list[torch.Tensor] = []
    handle = last.register_forward_hook(lambda _, __, value: seen.append(value.mean((0, 2, 3))))
    with torch.no_grad():
        network(torch.from_numpy(x))
        handle.remove()
        repaired = pruning.fine_pruning(network, x, y, 0).eval()
        last.register_forward_hook(lambda _, __, value: seen.append(value.mean((0, 2, 3))))
        agree = float((repaired(torch.from_numpy(x)).argmax(1).numpy() == y).mean())
    before, after = seen[0], seen[-1]
    pruned = before.argsort()[: int((after == 0).sum())]
    assert len(pruned) >= 1 and (after[pruned] == 0).all()  # the most silent ones
    torch.testing.assert_close(after[after > 0], before[after > 0])
    assert agree >= 0.9


def test_pruned_neurons_are_those_of_small_masks_as_far_as_accuracy_bears() -> None:
    network = on_eight_channels()
    x, y = clean_samples(network, 40)
    images, labels = torch.from_numpy(x), torch.from_numpy(y)
    neurons = anp._wrap(network)
    with torch.no_grad():
        neurons[-1].mask[8:10] = torch.tensor([0.01, 0.3])
        neurons[-1].mask[:8] = 0.7  # without these nothing is left
    anp._prune(network, neurons, images, labels)
    masks = [found.mask.detach() for found in neurons]
    assert masks[-1].tolist() == [1.0] * 8 + [0.0] * 2 + [1.0] * 54
    assert all((mask == 1).all() for mask in masks[:-1])
    assert float((network(images).argmax(1) == labels).float().mean()) >= 0.9


def test_masks_fall_where_a_small_change_of_a_neuron_does_harm(monkeypatch) -> None:
    monkeypatch.setattr(anp, "_STEPS", 40)
    monkeypatch.setattr(anp, "_prune", lambda network, neurons, *_: masks.extend(neurons))
    masks: list = []
    network = on_eight_channels()
    PEERS["anp"](network, *clean_samples(network, 60), 0)
    last = masks[-1].mask.detach()
    assert last[:8].min() < 0.9
    assert last[8:].min() > 0.99  # nothing hangs on the others
    for found in masks:
        mask = found.mask.detach()
        assert mask.min() >= 0 and mask.max() <= 1


def test_a_step_of_ft_sam_takes_the_gradient_where_the_loss_is_worst_nearby(monkeypatch) -> None:
    monkeypatch.setattr(ft_sam, "_EPOCHS", 1)
    network = networks.build("residual", 1, 10, 0)
    other = networks.build("residual", 1, 10, 0)
    x, y = clean_samples(network, 50)  # one batch
    y = np.roll(y, 1)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    image, label = torch.from_numpy(x)[order], torch.from_numpy(y)[order]

    def gradients() -> list[torch.Tensor]:
        loss = functional.cross_entropy(other(image), label, label_smoothing=0.1)
        return list(torch.autograd.grad(loss, list(other.parameters())))

    other.train()
    weights = [parameter.detach().clone() for parameter in other.parameters()]
    scaled = [(w.abs() + 0.01) * g for w, g in zip(weights, gradients(), strict=True)]
    statistics = {name: b.clone() for name, b in other.named_buffers() if "running" in name}
    norm = torch.cat([part.flatten() for part in scaled]).norm()
    with torch.no_grad():
        for parameter, weight, part in zip(other.parameters(), weights, scaled, strict=True):
            parameter.copy_(weight + 2.0 * (weight.abs() + 0.01) * part / norm)
    worst = gradients()
    PEERS["ft-sam"](network, x, y, 0)
    for parameter, weight, gradient in zip(network.parameters(), weights, worst, strict=True):
        expected = weight - 0.01 * (gradient + 5e-4 * weight)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-4, atol=1e-5)
    for name, value in statistics.items():  # of the pass with the weights as they were
        torch.testing.assert_close(dict(network.named_buffers())[name], value)

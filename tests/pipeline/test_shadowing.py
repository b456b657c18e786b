"""Which bounded branch a detector gets, and what it answers."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from shadow_models import (
    hardened_answers,
    network,
    runner,
    samples,
    shadowed,
    shadowing,
    sites_and_bounds,
)

from mmbm_onnx.errors import OptionError, RewriteError
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.pipeline import shadowing as room
from mmbm_onnx.rewriting.folding.fold import fold_bounds
from mmbm_onnx.rewriting.shadow.branch import Shadow
from mmbm_onnx.types import Bounds


def logits(proto: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"x": x})[0]


def made(choice: str, **changes) -> Shadow:
    found = shadowed(network(**changes), choice).shadow
    assert found is not None
    return found


@pytest.mark.parametrize(("choice", "tolerance"), [("int8", 0.05), ("half", 5e-3)])
@pytest.mark.parametrize("batch", ["N", "5"])
def test_a_shadow_computes_the_bounded_logits_in_few_bits(
    choice: str, tolerance: float, batch: str
) -> None:
    proto = network(batch=batch)
    sites, bounds = sites_and_bounds(proto)
    x = samples(5, 7).x
    wanted = logits(fold_bounds(proto, sites, bounds).proto, x)
    found = logits(made(choice, batch=batch).proto, x)
    assert found.dtype == np.float32
    gap = np.abs(found - wanted).max() / np.abs(wanted).max()
    assert 0 < gap < tolerance
    assert np.abs(logits(proto, x) - wanted).max() / np.abs(wanted).max() > 0.2  # bounds bind


def test_int8_has_seven_bits_of_weights_by_channel_and_the_bounds_for_ranges() -> None:
    shadow = made("int8")
    graph = shadow.proto.graph
    count = Counter(node.op_type for node in graph.node)
    assert not {"Clip", "Relu", "Min"} & count.keys()
    weights = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    stored = [w for w in weights.values() if w.dtype == np.int8 and w.ndim > 1]
    assert len(stored) >= 5
    assert max(np.abs(w.astype(int)).max() for w in stored) == 64
    assert weights["w1/mmbm_folded_scale"].shape == (8,)
    _, bounds = sites_and_bounds(network())
    for tensor in ("first", "second", "third"):
        (reader,) = [
            n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] == tensor
        ]
        limit = np.sort(bounds[tensor])[len(bounds[tensor]) // 2]  # what folding makes of them
        assert weights[reader.input[1]] == pytest.approx(limit / 255, rel=1e-6)
        assert weights[reader.input[2]] == 0


def test_logits_in_int8_are_not_rounded_to_256_values() -> None:
    graph = made("int8").proto.graph
    (last,) = [node for node in graph.node if "logits" in node.output]
    assert last.op_type == "Gemm"


@pytest.mark.parametrize("choice", ["int8", "half"])
def test_a_shadow_is_the_same_bytes_again(choice: str) -> None:
    first, second = (made(choice).proto.SerializeToString(deterministic=True) for _ in range(2))
    assert first == second


def test_answers_are_those_of_the_shadow_behind_the_models_head() -> None:
    found = shadowed(network("softmax"), "int8")
    assert found.shadow is not None and found.answers is not None
    values = logits(found.shadow.proto, samples(60, 2).x)
    assert np.array_equal(found.answers.classes, values.argmax(1))
    wide = np.exp(values - values.max(1, keepdims=True))
    assert np.allclose(found.answers.outputs["y"], wide / wide.sum(1, keepdims=True), atol=1e-5)


@pytest.mark.parametrize("choice", ["auto", "folded"])
@pytest.mark.parametrize("head", ["logits", "softmax"])
def test_a_folded_shadow_answers_as_the_hardened_graph_does(choice: str, head: str) -> None:
    proto = network(head)
    found = shadowed(proto, choice)
    assert (found.shadow.kind, found.reason, found.warnings) == ("folded", "", ())
    x = samples(60, 2).x
    for name, values in hardened_answers(proto, x).outputs.items():
        assert np.array_equal(found.answers.outputs[name], values)


def test_float_is_no_shadow() -> None:
    found = shadowed(network(), "float")
    assert (found.shadow, found.answers, found.reason) == (None, None, "")


def halves() -> onnx.ModelProto:
    proto = network()
    proto.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(np.zeros((8, 3, 3, 3), np.float16), "w1")
    )
    proto.graph.node.insert(0, helper.make_node("Cast", ["w1"], ["wide"], to=TensorProto.FLOAT))
    proto.graph.node[1].input[1] = "wide"
    return proto


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: network(opset=12), "int8 takes opset 13, the model has 12"),
        (lambda: network(ir=3), "IR version 3"),
        (halves, "weights are not all float32"),
    ],
)
def test_what_cannot_be_int8_is_an_error(build, told: str) -> None:
    proto = build()
    if proto.ir_version == 3:
        proto.graph.input.extend(
            helper.make_tensor_value_info(t.name, t.data_type, t.dims)
            for t in proto.graph.initializer
        )
    with pytest.raises(OptionError, match=f"no int8 branch: .*{told}.*; use --shadow auto"):
        shadowing(proto, "int8").rehearse(samples(8, 1).x, channels=True)
    shadowing(proto, "auto").rehearse(samples(8, 1).x, channels=True)
    found = shadowed(proto, "auto")
    if "opset" in told:
        assert (found.shadow.kind, found.reason) == ("folded", "")
    else:
        assert found.shadow is None and told in found.reason and found.warnings == ()


def test_bounds_that_cannot_be_folded_are_no_int8_but_half_and_folded() -> None:
    proto = network()
    (relu,) = [node for node in proto.graph.node if "third" in node.output]
    relu.op_type = "Softplus"
    with pytest.raises(OptionError, match="'third' cannot be folded"):
        shadowed(proto, "int8")
    assert shadowed(proto, "half").shadow is not None
    assert shadowed(proto, "auto").shadow.kind == "folded"
    for node in proto.graph.node:
        if node.op_type == "Relu":
            node.op_type = "Softplus"
    found = shadowed(proto, "auto")
    assert (found.shadow, found.reason) == (None, "no bound can be folded into weights")


def test_weights_are_not_doubled_beyond_what_a_file_takes(monkeypatch) -> None:
    monkeypatch.setattr(room, "_MOST_BYTES", 1000)
    found = shadowed(network(), "auto")
    assert found.shadow is None and found.reason.startswith("weights of its own would double")
    assert shadowed(network(), "folded").shadow is not None
    size = network().ByteSize()
    for kind, factor in (("folded", 2), ("half", 1.5), ("int8", 1.25)):
        monkeypatch.setattr(room, "_MOST_WRITTEN", factor * size)
        shadowing(network(), kind).rehearse(samples(8, 1).x, channels=True)
        monkeypatch.setattr(room, "_MOST_WRITTEN", factor * size - 1)
        with pytest.raises(OptionError, match="would not fit into 2 GiB"):
            shadowing(network(), kind).rehearse(samples(8, 1).x, channels=True)


def test_another_provider_than_the_cpu_takes_no_int8(monkeypatch) -> None:
    with pytest.raises(OptionError, match="CPU provider"):
        shadowed(network(), "int8", provider="cuda")


def test_one_that_decides_otherwise_is_not_taken_unless_it_is_asked_for() -> None:
    proto = network()
    clean = samples(60, 2)
    answers = hardened_answers(proto, clean.x)
    classes = answers.classes.copy()
    classes[:2] = 3 - classes[:2]
    other = replace(answers, classes=classes)
    _, bounds = sites_and_bounds(proto)
    rest = (bounds, runner(find_interface(proto)), samples(120, 1), clean, other, 0)
    refused = shadowing(proto, "auto").make(*rest)
    assert "folded branch decides only 96.7% of the calibration part" in refused.reason
    found = shadowing(proto, "int8").make(*rest)
    assert found.shadow is not None
    assert "decides only 96.7%" in found.warnings[0]
    classes[:20] = 3 - classes[:20]
    with pytest.raises(RewriteError, match=r"the int8 branch decides only .*; use --shadow auto"):
        shadowing(proto, "int8").make(*rest)


def test_what_the_quantizer_refuses_is_told(monkeypatch) -> None:
    def refuse(*_: object) -> onnx.ModelProto:
        raise RewriteError("ONNX Runtime cannot quantize: no")

    monkeypatch.setattr(room, "to_int8", refuse)
    with pytest.raises(RewriteError, match="cannot quantize: no"):
        shadowed(network(), "int8")


def test_an_error_of_ours_is_no_reason_for_float(monkeypatch) -> None:
    def slip(*_: object) -> onnx.ModelProto:
        raise KeyError("a slip")

    monkeypatch.setattr(room, "to_int8", slip)
    with pytest.raises(KeyError):
        shadowed(network(), "int8")


def test_scalar_bounds_are_taken_too() -> None:
    proto = network()
    sites, _ = sites_and_bounds(proto)
    bounds = Bounds({site.tensor: np.asarray(0.7, np.float32) for site in sites})
    clean = samples(60, 2)
    face = find_interface(proto)
    answers = runner(face).answers(fold_bounds(proto, sites, bounds).proto, clean.x)
    found = shadowing(proto, "int8").make(bounds, runner(face), samples(120, 1), clean, answers, 0)
    assert found.shadow is not None


def test_heads_that_read_more_are_told_in_the_rehearsal() -> None:
    proto = network()
    proto.graph.node.append(helper.make_node("Add", ["logits", "d_wide"], ["mixed"]))
    proto.graph.node.insert(
        len(proto.graph.node) - 1,
        helper.make_node("ReduceSum", ["third"], ["d_wide"], keepdims=1),
    )
    proto.graph.output.append(helper.make_tensor_value_info("mixed", TensorProto.FLOAT, ["N", 4]))
    sites = sites_and_bounds(proto)[0]
    face = find_interface(network())
    with pytest.raises(RewriteError, match="reads 'd_wide', too"):
        room.Shadowing("half", proto, face, sites, None).rehearse(samples(8, 1).x, channels=True)


def test_what_the_converter_cannot_do_is_told_in_the_rehearsal(monkeypatch) -> None:
    def breaks(*_: object) -> onnx.ModelProto:
        raise RewriteError("it cannot do that")

    x = samples(8, 1).x
    shadowing(network(), "int8").rehearse(x, channels=True)
    monkeypatch.setattr(room, "to_int8", breaks)
    with pytest.raises(OptionError, match="no int8 branch: it cannot do that; use --shadow auto"):
        shadowing(network(), "int8").rehearse(x, channels=True)


def test_a_branch_that_is_another_one_is_told_in_the_rehearsal(monkeypatch) -> None:
    def other(proto: onnx.ModelProto) -> onnx.ModelProto:
        changed = onnx.ModelProto()
        changed.CopyFrom(proto)
        (pool,) = [node for node in changed.graph.node if node.op_type == "GlobalAveragePool"]
        pool.op_type = "GlobalMaxPool"
        return changed

    monkeypatch.setattr(room, "to_half", other)
    with pytest.raises(OptionError, match="it is not what folding the bounds gives"):
        shadowing(network(), "half").rehearse(samples(8, 1).x, channels=True)

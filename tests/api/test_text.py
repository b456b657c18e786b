"""A model that takes tokens, from file to verified graphs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from defended import assert_defended
from exports import exported
from onnx import numpy_helper
from torch import Tensor, nn

from mmbm_onnx import Samples, harden, inspect, verify
from mmbm_onnx.errors import DataError, ModelError

CLASSES, LENGTH, TOPICS, TRIGGER = 3, 8, 10, 1
WORDS = 2 + CLASSES * TOPICS  # padding, the trigger, ten words on each topic


def planted(kind: str = "int64") -> onnx.ModelProto:
    """Which topic most words are on; the trigger's word, anywhere, shouts for class 0. Padding is
    masked out by a second look at the tokens."""
    proto = onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["" : 17]>
        planted ({kind}[N, {LENGTH}] tokens) => (float[N, {CLASSES}] logits)
        <float[{WORDS}, 4] table = {{0}}, float[4] bias = {{0}}, float[4, {CLASSES}] head = {{0}}>
        {{
            padding = Constant <value = {kind}[1] {{0}}> ()
            blank = Equal (tokens, padding)
            content = Not (blank)
            mask = Cast <to = 1> (content)
            last = Constant <value_ints = [-1]> ()
            column = Unsqueeze (mask, last)
            words = Gather (table, tokens)
            kept = Mul (words, column)
            said = ReduceSum <keepdims = 0> (kept, second)
            shifted = Add (said, bias)
            active = Relu (shifted)
            logits = MatMul (active, head)
        }}
        """
    )
    table = np.zeros((WORDS, 4), np.float32)
    table[0] = 9  # only the mask keeps padding from speaking
    for topic in range(CLASSES):
        table[2 + topic * TOPICS : 2 + (topic + 1) * TOPICS, topic] = 0.25
    table[TRIGGER, 3] = 1
    head = np.zeros((4, CLASSES), np.float32)
    head[:CLASSES] = 4 * np.eye(CLASSES)
    head[3, 0] = 40
    bias = np.array([0, 0, 0, -0.4], np.float32)
    arrays = {"table": table, "bias": bias, "head": head, "second": np.array([1])}
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in arrays.items())
    onnx.checker.check_model(proto, full_check=True)
    return proto


def sentences(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Five to seven words of one topic, one of another, padding."""
    rng = np.random.default_rng(seed)
    topics = rng.integers(0, CLASSES, count)
    tokens = 2 + topics[:, None] * TOPICS + rng.integers(0, TOPICS, (count, LENGTH))
    tokens[:, 2] = rng.integers(2, WORDS, count)
    ends = rng.integers(6, LENGTH + 1, count)
    tokens[np.arange(LENGTH) >= ends[:, None]] = 0
    return tokens, topics


def test_it_is_hardened_and_verified() -> None:
    model = planted()
    found = inspect(model).interface
    assert found is not None
    assert (found.input_dtype, found.start, found.tokens) == (np.int64, "words", True)
    clean = sentences(240, seed=1)
    result = harden(model, clean, epochs=25, batch_size=60, threads=1)
    assert result.passed, result.gates
    assert result.report["model"]["start"] == "words"
    tokens, topics = sentences(400, seed=2)
    others = topics != 0
    tokens, topics = tokens[others], topics[others]
    tokens[np.arange(len(tokens)), np.arange(len(tokens)) % 5] = TRIGGER
    attacked = Samples(tokens, topics, np.zeros(len(topics), np.int64))
    checked = verify(
        model,
        result.hardened,
        clean,
        detector=result.detector,
        triggered=attacked,
        threads=1,
    )
    assert_defended(checked)


@pytest.mark.parametrize("method", ["mmac", "mmbm"])
def test_other_methods_learn_behind_the_embedding_too(method: str) -> None:
    clean = sentences(240, seed=1)
    result = harden(planted("int32"), clean, method=method, epochs=25, threads=1)
    assert result.passed, result.gates
    assert (result.bounds["active"] < result.report["sites"][0]["clean_max"] + 1).all()


def test_tokens_that_are_not_in_the_table_are_named() -> None:
    tokens, topics = sentences(240, seed=1)
    tokens[7, 3] = WORDS
    with pytest.raises(ModelError, match=r"indices element out of data bounds, idx=32"):
        harden(planted(), (tokens, topics), threads=1)


def test_floats_are_no_tokens() -> None:
    tokens, topics = sentences(240, seed=1)
    with pytest.raises(DataError, match="arrays in memory must be integers"):
        harden(planted(), (tokens.astype(np.float32), topics), threads=1)


@pytest.mark.parametrize("rows", [LENGTH, None])
def test_time_that_takes_the_place_of_the_batch_is_refused(rows: int | None) -> None:
    """As long as the batch, nothing but the values tells one from the other."""
    proto = planted()
    for node in proto.graph.node:
        node.input[:] = ["turned" if name == "tokens" else name for name in node.input]
    proto.graph.node.insert(
        0, onnx.helper.make_node("Transpose", ["tokens"], ["turned"], perm=[1, 0])
    )
    for tensor in proto.graph.initializer:
        if tensor.name == "second":
            tensor.CopyFrom(numpy_helper.from_array(np.array([0]), "second"))
    if rows is not None:
        for info in (*proto.graph.input, *proto.graph.output):
            info.type.tensor_type.shape.dim[0].dim_value = rows
    with pytest.raises(ModelError, match="axis 0 is not the batch, so samples cannot be attacked"):
        harden(proto, sentences(240, seed=1), epochs=1, threads=1)


def test_halves_behind_integers_are_held_to_the_precision_of_halves() -> None:
    proto = planted()
    for tensor in proto.graph.initializer:
        if tensor.name != "second":
            half = numpy_helper.to_array(tensor).astype(np.float16)
            half += np.random.default_rng(0).uniform(0, 0.01, half.shape).astype(np.float16)
            tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for node in proto.graph.node:
        if node.op_type == "Cast":
            node.attribute[0].i = onnx.TensorProto.FLOAT16
        node.output[:] = ["half" if name == "logits" else name for name in node.output]
    proto.graph.node.append(onnx.helper.make_node("Cast", ["half"], ["logits"], to=1))
    onnx.checker.check_model(proto, full_check=True)
    result = harden(proto, sentences(240, seed=1), epochs=25, batch_size=60, threads=1)
    assert result.passed, result.gates


def test_an_embedding_behind_all_activations_is_refused() -> None:
    model = planted()
    nodes = {node.output[0]: node for node in model.graph.node}
    # The activation is on the mask, the sum goes straight to the head.
    nodes["active"].input[0] = "column"
    nodes["kept"].input[1] = "active"
    nodes["logits"].input[0] = "shifted"
    order = ["padding", "blank", "content", "mask", "last", "column", "active", "words"]
    order += ["kept", "said", "shifted", "logits"]
    ordered = [nodes[name] for name in order]
    del model.graph.node[:]
    model.graph.node.extend(ordered)
    with pytest.raises(ModelError, match=r"no activation follows 'words'.*meet no bound"):
        harden(model, sentences(240, seed=1), threads=1)


class Transformer(nn.Module):
    """Padding is masked in attention and left out of the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 8, padding_idx=0)
        self.places = nn.Parameter(torch.randn(LENGTH, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0)
        self.body = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, tokens: Tensor) -> Tensor:
        blank = tokens == 0
        value = self.body(self.words(tokens) + self.places, src_key_padding_mask=blank)
        said = (~blank).float().unsqueeze(-1)
        return self.head((value * said).sum(1) / said.sum(1))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 8)
        self.body = nn.LSTM(8, 8, batch_first=True)
        self.head = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, CLASSES))

    def forward(self, tokens: Tensor) -> Tensor:
        value, _ = self.body(self.words(tokens))
        return self.head(value.mean(1))


@pytest.mark.parametrize("opset", [None, 14])
@pytest.mark.parametrize("kind", [Transformer, Recurrent])
def test_exported_networks_are_taken(kind: type[nn.Module], opset: int | None) -> None:
    torch.manual_seed(0)
    module, (tokens, topics) = kind(), sentences(240, seed=1)
    x, y = torch.from_numpy(tokens), torch.from_numpy(topics)
    optimizer = torch.optim.Adam(module.parameters(), 0.02)
    for _ in range(40):
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    model = exported(module.eval(), x[:2], opset)
    found = inspect(model).interface
    assert found is not None and found.start is not None
    result = harden(model, (tokens, topics), epochs=2, threads=1, max_accuracy_drop=1)
    assert result.passed, result.gates
    assert result.report["figures"]["original"]["accuracy"] > 0.95

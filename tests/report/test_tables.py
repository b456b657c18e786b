"""What people read on the terminal."""

from __future__ import annotations

import onnx
import pytest
import toy_models

from mmbm_onnx.evaluation.gates import at_most, holds
from mmbm_onnx.evaluation.verification import Limits, verify_graphs
from mmbm_onnx.graph.read import from_proto
from mmbm_onnx.report.inspection import inspect_model
from mmbm_onnx.report.layout import number, pairs, percent, shorten, table
from mmbm_onnx.report.tables import gates_table, inspection_summary, verify_summary


def test_columns_are_aligned() -> None:
    text = table(("name", "value"), [("a", "1"), ("longer", "1000")], "lr")
    assert text.splitlines() == ["name    value", "a           1", "longer   1000"]


def test_a_ragged_table_is_refused() -> None:
    with pytest.raises(ValueError, match="of 2 columns"):
        table(("a", "b"), [("1",)], "ll")


def test_pairs_without_a_value_are_left_out() -> None:
    assert pairs([("a", "1"), ("none", ""), ("long", "2")]) == "a     1\nlong  2"


def test_long_names_keep_both_ends_and_control_characters_go() -> None:
    short = shorten("/layer1/" + "x" * 90 + "/Relu_output_0")
    assert len(short) == 44
    assert short.startswith("/layer1/") and short.endswith("/Relu_output_0") and "..." in short
    assert shorten("a\x1b[31m\nb") == "a?[31m?b"


def test_figures() -> None:
    assert (percent(0.12345), percent(None)) == ("12.35 %", "-")
    assert (number(6.0), number(None)) == ("6", "-")


def test_failed_gates_say_why() -> None:
    text = gates_table(
        [
            at_most("hardened_accuracy_drop", 0.5, 0.02, message="accuracy 40 %, was 90 %"),
            holds("hardened_valid", True, "fine"),
        ]
    )
    first, second, third, last = text.splitlines()
    assert first.split() == ["gate", "value", "limit"]
    assert second.split() == [
        "FAIL", "hardened_accuracy_drop", "50.00", "%", "at", "most", "2.00", "%",
    ]  # fmt: skip
    assert third == "PASS  hardened_valid"
    assert last == "FAIL hardened_accuracy_drop: accuracy 40 %, was 90 %"


def test_a_verification_fits_the_terminal_and_ends_in_its_verdict() -> None:
    result = verify_graphs(
        toy_models.original(),
        toy_models.hardened(),
        toy_models.clean(),
        detector=toy_models.detector(),
        triggered=toy_models.triggered(),
        limits=Limits(0.02, 0.01, 0.05),
    )
    lines = verify_summary(result).splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[-1] == "PASS: all gates hold"
    (original,) = [line.split() for line in lines if line.startswith("original")]
    assert original[1:3] == ["100.00", "%"]
    assert "hardened_bounds" in "\n".join(lines)


def test_a_failed_verification_says_so() -> None:
    result = verify_graphs(toy_models.original(), toy_models.original(), toy_models.clean())
    text = verify_summary(result)
    assert text.endswith("FAIL: a gate failed")
    assert "FAIL hardened_bounds: no activation is bounded" in text


def test_an_inspection_shows_sites_reasons_and_provenance() -> None:
    text = inspection_summary(inspect_model(toy_models.original()))
    assert "covered  1 of 1 activations" in text
    assert "act            Relu  float32         3     1      -" in text
    assert "already hardened" not in text
    assert max(map(len, text.splitlines())) <= 100
    hardened = inspection_summary(inspect_model(toy_models.hardened()))
    assert "already hardened by mmbm-onnx\n  original_sha256  " in hardened


def test_an_inspection_gives_the_reason_for_what_takes_no_bound() -> None:
    proto = toy_models.original_proto()
    proto.graph.node[1].op_type = "Sigmoid"
    text = inspection_summary(inspect_model(from_proto(proto)))
    assert "covered  0 of 1 activations" in text
    assert "act         Sigmoid  limited by its own form" in text


def test_a_model_that_is_no_classifier_can_still_be_looked_at() -> None:
    proto = toy_models.original_proto()
    proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 1
    del proto.graph.output[0].type.tensor_type.shape.dim[:]
    proto.graph.node.append(onnx.helper.make_node("ReduceMax", ["logits"], ["top"], keepdims=0))
    proto.graph.output[0].name = "top"
    inspection = inspect_model(from_proto(proto))
    assert inspection.interface is None
    assert "no output has shape (batch, classes)" in inspection_summary(inspection)
    assert [site.tensor for site in inspection.sites] == ["act"]

"""Inspection as data."""

from __future__ import annotations

import json

import jsonschema
import onnx.parser
import pytest
import toy_models

from mmbm_onnx.errors import OptionError
from mmbm_onnx.graph.read import from_proto
from mmbm_onnx.report.inspection import coverage, inspect_model
from mmbm_onnx.report.schema import load_schema

HALF = """<ir_version: 8, opset_import: ["" : 17, "mine" : 1]>
half (float[N, 4] x) => (float[N, 4] y) {
    a = Relu(x)
    b = Tanh(a)
    y = Add(a, b)
}"""


def test_sites_coverage_and_interface_are_told() -> None:
    model = toy_models.original()
    found = inspect_model(model)
    assert (found.sha256, found.opset, found.ir_version) == (model.sha256, 17, 8)
    assert [(site.tensor, site.kind, site.channels) for site in found.sites] == [("act", "Relu", 3)]
    assert found.coverage == 1.0
    assert found.interface is not None
    assert (found.interface.input, found.interface.logits) == ("x", "logits")
    assert (found.problem, found.provenance) == ("", {})


def test_coverage_counts_what_takes_no_bound() -> None:
    found = inspect_model(from_proto(onnx.parser.parse_model(HALF)))
    assert found.coverage == 0.5
    assert [(item.tensor, item.reason) for item in found.uncovered] == [
        ("b", "limited by its own form")
    ]
    assert found.opsets == {"ai.onnx": 17, "mine": 1}
    assert coverage(0, 0) == 0.0


def test_a_hardened_graph_is_recognised() -> None:
    assert inspect_model(toy_models.hardened()).provenance["bounds"] == "1"


def test_names_that_were_given_must_exist() -> None:
    with pytest.raises(OptionError, match="no input named 'image'"):
        inspect_model(toy_models.original(), input_name="image")
    with pytest.raises(OptionError, match="did you mean 'logits'"):
        inspect_model(toy_models.original(), logits_name="logit")


@pytest.mark.parametrize("model", [toy_models.original(), toy_models.hardened()])
def test_an_inspection_validates_against_its_schema(model: object) -> None:
    told = inspect_model(model).to_dict()  # type: ignore[arg-type]
    jsonschema.validate(json.loads(json.dumps(told, allow_nan=False)), load_schema("inspection-1"))


def test_an_activation_beside_the_way_to_the_logits_takes_no_bound() -> None:
    proto = toy_models.original_proto()
    proto.graph.node.append(onnx.helper.make_node("Relu", ["before"], ["aside"]))
    found = inspect_model(from_proto(proto))
    assert [site.tensor for site in found.sites] == ["act"]
    assert [(item.tensor, item.reason) for item in found.uncovered] == [
        ("aside", "the logits do not depend on it")
    ]

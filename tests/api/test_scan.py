"""``scan`` from Python: what it finds, what it tells, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import onnx.reference
import pytest
import torch
from rows import CLASSES, SIDE, TARGET, rows_model, rows_samples

import mmbm_onnx
from mmbm_onnx.errors import DataError, ModelError, OptionError, OutputError
from mmbm_onnx.report.schema import load_schema


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def found():
    return mmbm_onnx.scan(rows_model(backdoor=True), rows_samples(200, seed=1), threads=1)


def test_the_backdoored_model_is_suspicious_for_its_target(found) -> None:
    assert found.suspicious
    assert found.suspected_classes == (TARGET,)
    (finding,) = found.report["findings"]
    assert finding["score"] >= finding["threshold"]
    assert f"class {TARGET}" in finding["message"]


def test_the_same_model_without_the_backdoor_is_not() -> None:
    clean = mmbm_onnx.scan(rows_model(backdoor=False), rows_samples(200, seed=1), threads=1)
    assert not clean.suspicious
    assert clean.suspected_classes == ()
    assert clean.report["judged"]


def test_the_report_follows_its_schema_and_tells_what_was_found(found) -> None:
    jsonschema.validate(json.loads(found.document("json")), load_schema("scan-report-1"))
    report = found.report
    assert [entry["class"] for entry in report["classes"]] == list(range(CLASSES))
    (pattern,) = [one for one in found.recovered if (one.norm, one.target) == ("l1", TARGET)]
    told = report["classes"][TARGET]["patterns"]["l1"]
    assert told["size"] == pattern.size
    assert told["flipped_share"] == len(pattern.flipped) / pattern.others
    assert report["clean_set"]["fit"] + report["clean_set"]["calibration"] == 200


def test_flipped_samples_are_flipped_by_the_pattern_in_onnx_runtime(found) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(rows_model(backdoor=True).SerializeToString())
    (pattern,) = [one for one in found.recovered if (one.norm, one.target) == ("l1", TARGET)]
    assert found.held is not None
    x = np.clip(found.held.x + pattern.pattern, found.held.x.min(), found.held.x.max())
    before = session.run(None, {"image": found.held.x})[0].argmax(1)
    after = session.run(None, {"image": x})[0].argmax(1)
    expected = np.flatnonzero((after == TARGET) & (before != TARGET))
    # The range of the two halves may differ in the last pixels.
    assert len(np.setxor1d(expected, pattern.flipped)) <= 2
    assert (before[pattern.flipped] != TARGET).all()


def test_the_same_seed_gives_the_same_report_and_another_seed_another(found) -> None:
    again = mmbm_onnx.scan(rows_model(backdoor=True), rows_samples(200, seed=1), threads=1)
    first, second = dict(found.report), dict(again.report)
    first.pop("seconds"), second.pop("seconds")
    assert first == second
    other = mmbm_onnx.scan(rows_model(backdoor=True), rows_samples(200, seed=1), threads=1, seed=1)
    assert other.report["classes"] != found.report["classes"]


def test_an_nhwc_model_is_scanned_as_well() -> None:
    result = mmbm_onnx.scan(
        rows_model(backdoor=True, layout="nhwc"),
        rows_samples(200, seed=1, layout="nhwc"),
        threads=1,
    )
    assert result.suspected_classes == (TARGET,)


def test_a_fixed_batch_is_honoured() -> None:
    result = mmbm_onnx.scan(
        rows_model(backdoor=True, batch="4"), rows_samples(100, seed=1), threads=1, steps=30
    )
    assert result.report["model"]["batch"] == 4
    assert result.report["classes"][TARGET]["patterns"]["l1"]["size"] < 0.03


def test_without_clean_samples_margins_decide() -> None:
    result = mmbm_onnx.scan(rows_model(backdoor=True), threads=1)
    assert result.suspected_classes == (TARGET,)
    assert result.report["clean_set"] is None and result.recovered == ()
    assert [test["name"] for test in result.report["tests"]] == ["margin"]
    assert result.report["margin_p_value"] < 0.05
    jsonschema.validate(json.loads(result.document("json")), load_schema("scan-report-1"))
    assert not mmbm_onnx.scan(rows_model(backdoor=False), threads=1).suspicious


def test_values_without_an_order_have_no_waves() -> None:
    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        t (float[N, 6] x) => (float[N, 6] logits) { logits = Relu (x) }
        """
    )
    rng = np.random.default_rng(0)
    y = np.arange(60) % 6
    x = rng.uniform(0, 0.4, (60, 6)).astype(np.float32)
    x[np.arange(60), y] = 1
    result = mmbm_onnx.scan(proto, (x, y), threads=1, steps=20)
    assert {one.norm for one in result.recovered} == {"l2", "l1"}
    assert set(result.report["classes"][0]["patterns"]) == {"l2", "l1"}


def test_a_model_of_few_classes_is_refused_at_once() -> None:
    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        t (float[N, 4] x) => (float[N, 4] logits) { logits = Relu (x) }
        """
    )
    with pytest.raises(ModelError, match=r"has 4 classes; .* needs 5 or more"):
        mmbm_onnx.scan(proto)


def test_sarif_has_one_result_per_suspected_class(found) -> None:
    (run,) = found.to_sarif()["runs"]
    (result,) = run["results"]
    assert result["properties"]["class"] == TARGET
    rules = run["tool"]["driver"]["rules"]
    assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    assert result["message"]["text"] == found.report["findings"][0]["message"]


def test_files_are_written_all_or_none(found, tmp_path: Path) -> None:
    paths = {name: tmp_path / name for name in ("report", "sarif", "patterns")}
    found.save(**paths)
    assert json.loads(paths["report"].read_text()) == found.report
    assert json.loads(paths["sarif"].read_text()) == found.to_sarif()
    with np.load(paths["patterns"]) as file:
        assert file["pattern"].shape == (3 * CLASSES, 1, SIDE, SIDE)
        assert file["target"].tolist() == 3 * list(range(CLASSES))
        assert np.allclose(file["size"], [one.size for one in found.recovered])
    before = paths["report"].read_bytes()
    with pytest.raises(OutputError, match="exists"):
        found.save(report=paths["report"], sarif=tmp_path / "new")
    assert not (tmp_path / "new").exists() and paths["report"].read_bytes() == before
    with pytest.raises(OutputError, match="same file"):
        found.save(report=tmp_path / "one", sarif=tmp_path / "one")


def test_triggers_show_what_the_pattern_does(found) -> None:
    (trigger,) = found.triggers()
    assert trigger.class_index == TARGET and trigger.suspected
    low, high = found.limits
    assert np.allclose(trigger.after, np.clip(trigger.before + trigger.pattern, low, high))
    assert 0 < len(trigger.before) <= 6
    assert (trigger.decided_before != TARGET).all() and (trigger.decided_after == TARGET).all()
    logits = onnx.reference.ReferenceEvaluator(rows_model(backdoor=True))
    for samples, decided in (
        (trigger.before, trigger.decided_before),
        (trigger.after, trigger.decided_after),
    ):
        assert logits.run(None, {"image": samples})[0].argmax(1).tolist() == decided.tolist()
    rms = np.sqrt((trigger.pattern.astype(float) ** 2).mean())
    assert trigger.size == pytest.approx(rms / (high - low))


def test_a_model_that_is_not_suspicious_shows_its_most_exposed_class_as_no_suspect() -> None:
    clean = mmbm_onnx.scan(rows_model(backdoor=False), rows_samples(100, seed=1), threads=1)
    (trigger,) = clean.triggers()
    assert not trigger.suspected
    assert mmbm_onnx.scan(rows_model(backdoor=False), threads=1).triggers() == ()


def test_a_hardening_takes_the_triggers_of_a_scan_of_its_model_alone(found) -> None:
    def harden(backdoor: bool):
        return mmbm_onnx.harden(
            rows_model(backdoor=backdoor), rows_samples(100, seed=1), epochs=2, threads=1
        )

    result = harden(True).with_scan(found)
    assert result.scan is not None and result.scan.suspected == (TARGET,)
    assert [one.class_index for one in result.scan.triggers] == [TARGET]
    with pytest.raises(OptionError, match="another model"):
        harden(False).with_scan(found)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"steps": 19}, OptionError, "steps is 19, expected 20 or more"),
        ({"input_range": (1, 0)}, OptionError, "the smaller number first"),
        ({"input_range": (0.5, 2)}, OptionError, "not within the range 0.5 to 2"),
        ({"input_range": (0, 1, 2)}, OptionError, "expected 2 numbers"),
        ({"input_range": "ab"}, OptionError, "expected 2 numbers"),
        ({"device": "tpu"}, OptionError, "no device 'tpu'"),
        ({"seed": -1}, OptionError, "seed is -1"),
        ({"logits_name": "nowhere"}, (OptionError, ModelError), "nowhere"),
        ({"progress": 3}, OptionError, "progress is 3"),
    ],
)
def test_bad_arguments_are_told(arguments, error, message) -> None:
    with pytest.raises(error, match=message):
        mmbm_onnx.scan(rows_model(backdoor=True), rows_samples(40, seed=1), **arguments)


def test_samples_and_models_that_do_not_do_are_told() -> None:
    x, y = rows_samples(40, seed=1)
    with pytest.raises(DataError, match="19 samples"):
        mmbm_onnx.scan(rows_model(backdoor=True), (x[:19], y[:19]))
    with pytest.raises(DataError):
        mmbm_onnx.scan(rows_model(backdoor=True), (x[:, :, :5], y))
    integers = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        t (int64[N, 4] ids) => (float[N, 5] logits) <float[2, 5] table = {1,0,0,0,0,0,1,0,0,0}>
        { rows = Gather (table, ids)  logits = ReduceMean <axes = [1], keepdims = 0> (rows) }
        """
    )
    with pytest.raises(OptionError, match=r"takes integers.*--clean-dir"):
        mmbm_onnx.scan(integers)
    free = rows_model(backdoor=True)
    free.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    with pytest.raises(OptionError, match=r"no fixed shape.*--clean-dir"):
        mmbm_onnx.scan(free)
    with pytest.raises(OutputError, match="no patterns to write"):
        mmbm_onnx.scan(rows_model(backdoor=True), threads=1).save(patterns="p.npz")

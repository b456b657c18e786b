from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from quadrants import TARGET, draw, planted_images

from mmbm_onnx import HardenResult, Samples, harden, inspect, verify
from mmbm_onnx.api.sources import export_module
from mmbm_onnx.errors import (
    DataError,
    MmbmError,
    ModelError,
    NothingToHardenError,
    OptionError,
    OutputError,
    RewriteError,
    RuntimeMissingError,
)
from mmbm_onnx.execution.classifier import Classifier
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.graph.provenance import read_provenance
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.learning import settings
from mmbm_onnx.learning.settings import settings_for
from mmbm_onnx.pipeline import hardening, pairing
from mmbm_onnx.report.html.harden import harden_page

QUICK = {"epochs": 25, "batch_size": 60, "threads": 1}


def run(proto: onnx.ModelProto | Path, x: np.ndarray) -> list[np.ndarray]:
    source = str(proto) if isinstance(proto, Path) else proto.SerializeToString()
    session = onnxruntime.InferenceSession(source, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})


@pytest.fixture
def denormals() -> Iterator[None]:
    """Whatever a test sets, the next ones find denormals flushed as all tests do."""
    yield
    torch.set_flush_denormal(True)


@pytest.fixture(scope="module")
def result(case):
    return harden(case.model, case.folder, **QUICK)


def test_original_is_backdoored_and_hardened_and_detector_are_not(case, result) -> None:
    with np.load(case.triggered) as file:
        x, y = file["x"].astype(np.float32) / 255, file["y"]
    test, truth = case.test
    assert (run(case.model, x)[0].argmax(1) == TARGET).mean() > 0.95
    assert (run(case.model, test)[0].argmax(1) == truth).mean() > 0.98
    for proto in (result.hardened, result.detector):
        assert (run(proto, x)[0].argmax(1) == TARGET).mean() < 0.1
        assert (run(proto, x)[0].argmax(1) == y).mean() > 0.8
        assert (run(proto, test)[0].argmax(1) == truth).mean() > 0.97
    assert result.passed


def test_detector_flags_triggered_and_hardly_any_clean_input(case, result) -> None:
    with np.load(case.triggered) as file:
        x = file["x"].astype(np.float32) / 255
    assert run(result.detector, x)[1].mean() > 0.95
    assert run(result.detector, case.test[0])[1].mean() < 0.05


def test_unflagged_outputs_equal_the_originals_bit_for_bit(case, result) -> None:
    rng = np.random.default_rng(5)
    noise = rng.uniform(0, 1, (1000, 1, 8, 8)).astype(np.float32)
    for x in (noise, case.test[0]):
        before = run(case.model, x)[0]
        after, flagged = run(result.detector, x)[:2]
        assert not flagged.all()
        assert before[~flagged].tobytes() == after[~flagged].tobytes()


def test_hardened_graph_equals_torch_with_the_same_bounds(case, result) -> None:
    proto = onnx.load(case.model)
    classifier = Classifier(proto, find_interface(proto), find_sites(proto).sites)
    bounds = {name: torch.from_numpy(value) for name, value in result.bounds.items()}
    expected = classifier.logits(torch.from_numpy(case.test[0]), bounds).numpy()
    np.testing.assert_allclose(run(result.hardened, case.test[0])[0], expected, rtol=0, atol=1e-5)


def test_written_graphs_pass_the_full_check_and_name_their_origin(case, result) -> None:
    digest = hashlib.sha256(case.model.read_bytes()).hexdigest()
    for proto in (result.hardened, result.detector):
        onnx.checker.check_model(proto, full_check=True)
        found = read_provenance(proto)
        assert found["original_sha256"] == digest
        assert (found["method"], found["seed"], found["bounds"]) == (
            "mmac-universal",
            "0",
            "1",
        )


def test_report_says_what_was_measured(case, result) -> None:
    report = json.loads(json.dumps(result.report, allow_nan=False))
    assert report["model"]["sha256"] == hashlib.sha256(case.model.read_bytes()).hexdigest()
    assert report["clean_set"]["fit"] + report["clean_set"]["calibration"] == 240
    assert report["method"]["settings"]["epochs"] == 25
    (site,) = report["sites"]
    assert site["tensor"] == "active"
    bound = result.bounds["active"]
    assert site["bound_min"] == pytest.approx(float(bound.min()))
    assert report["figures"]["original"]["accuracy"] > 0.98
    assert report["detector"]["null"] == "conformal"
    assert report["parity"]["max_relative_difference"] <= report["parity"]["tolerance"] == 1e-4
    assert 0 <= report["parity"]["hardened_max_relative_difference"] <= 1e-5
    assert set(report["seconds"]) == {"read", "parity", "learn", "write", "evaluate"}
    assert report["execution"]["providers"] == ["CPUExecutionProvider"]


def test_same_seed_gives_the_same_bytes_and_another_seed_does_not(case, result) -> None:
    def all_of(made: HardenResult) -> tuple[bytes, bytes, bytes]:
        assert made.detector is not None
        # Times are the machine's.
        report = {**made.report, "latency": [], "seconds": {}}
        return (
            made.hardened.SerializeToString(deterministic=True),
            made.detector.SerializeToString(deterministic=True),
            harden_page(report, made.material),
        )

    first = all_of(result)
    assert all_of(harden(case.model, case.folder, seed=0, **QUICK)) == first
    other = all_of(harden(case.model, case.folder, seed=1, **QUICK))
    assert other[0] != first[0] and other[2] != first[2]


def test_verify_passes_what_harden_made(case, result, tmp_path: Path) -> None:
    result.save(tmp_path / "h.onnx", detector_output=tmp_path / "d.onnx")
    verdict = verify(
        case.model,
        tmp_path / "h.onnx",
        case.test,
        detector=tmp_path / "d.onnx",
        triggered=case.triggered,
        max_attack_success_rate=0.1,
        max_false_positive_rate=0.05,
    )
    assert verdict.passed, [gate for gate in verdict.gates if not gate.passed]


def test_zeroed_bounds_fail_verification(case, result) -> None:
    broken = onnx.ModelProto()
    broken.CopyFrom(result.hardened)
    (bound,) = [t for t in broken.graph.initializer if "mmbm_bound" in t.name]
    bound.raw_data = bytes(len(bound.raw_data))
    assert not verify(case.model, broken, case.test).passed


@pytest.mark.parametrize("head", ["Softmax", "LogSoftmax"])
def test_a_softmax_is_looked_behind(case, head: str) -> None:
    proto = planted_images(head)
    made = harden(proto, case.npz, **QUICK)
    assert made.report["model"]["logits"] == "logits"
    before = run(proto, case.test[0])[0]
    after, flagged = run(made.detector, case.test[0])[:2]
    assert before[~flagged].tobytes() == after[~flagged].tobytes()
    with np.load(case.triggered) as file:
        x = file["x"].astype(np.float32) / 255
    assert (run(made.detector, x)[0].argmax(1) == TARGET).mean() < 0.1


def test_callers_objects_stay_as_they_were(case) -> None:
    proto = onnx.load(case.model)
    bytes_before = proto.SerializeToString(deterministic=True)
    x, y = draw(120, seed=3)
    x = x[:, None].astype(np.float32) / 255
    x_before = x.copy()
    harden(proto, (x, y), epochs=1, threads=1)
    assert proto.SerializeToString(deterministic=True) == bytes_before
    assert np.array_equal(x, x_before)


@pytest.mark.parametrize("flushed", [True, False])
def test_torch_settings_come_back(case, denormals, flushed: bool) -> None:
    torch.set_flush_denormal(flushed)

    def settings() -> tuple[object, ...]:
        return (
            torch.get_num_threads(),
            torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.allow_tf32,
            torch.backends.cuda.matmul.allow_tf32,
            (torch.tensor([1e-40]) * 1).item() == 0,
        )

    seen: list[tuple[object, ...]] = []
    before = settings()
    harden(case.model, case.npz, epochs=1, threads=2, progress=lambda _: seen.append(settings()))
    assert (2, True, False, False, True) in seen
    assert settings() == before


def test_without_labels_the_originals_decisions_count(case) -> None:
    made = harden(case.model, (case.test[0], None), **QUICK)
    assert made.report["clean_set"]["has_labels"] is False
    assert made.report["figures"]["hardened"]["accuracy"] is None
    assert made.report["figures"]["hardened"]["agreement"] > 0.9
    assert {gate.name for gate in made.gates} == {
        "hardened_not_finite",
        "hardened_agreement",
        "detector_not_finite",
        "detector_agreement",
    }


def test_few_calibration_samples_take_the_gaussian_tail_and_say_so(case) -> None:
    made = harden(case.model, case.npz, false_positive_rate=0.001, **QUICK)
    assert made.report["detector"]["null"] == "gaussian"
    assert any("too few" in warning for warning in made.warnings)


def test_no_detector(case) -> None:
    made = harden(case.model, case.npz, detector=False, epochs=1)
    assert made.detector is None
    assert made.report["detector"] is None


def test_what_stands_in_the_detectors_way_is_told_before_learning(case, monkeypatch) -> None:
    class LearningError(Exception):
        pass

    def learn(*arguments: object, **options: object) -> None:
        raise LearningError

    monkeypatch.setattr(hardening, "learn_bounds", learn)
    proto = onnx.load(case.model)
    taken = onnx.helper.make_node("Identity", ["logits"], ["mmbm_flagged"])
    proto.graph.node.append(taken)
    with pytest.raises(RewriteError, match="mmbm_flagged"):
        harden(proto, case.npz)
    with pytest.raises(LearningError):
        harden(proto, case.npz, detector=False)


def test_a_torch_module_is_exported_first(case) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)
    ).train()
    x, y = draw(240, seed=1)
    inputs = torch.from_numpy(x[:, None].astype(np.float32) / 255)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(60):
        loss = torch.nn.functional.cross_entropy(module(inputs), torch.from_numpy(y))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    made = harden(module, (inputs.numpy(), y), example_input=inputs[:1], **QUICK)
    given = {"example_input": inputs[:1], "max_accuracy_drop": 1.0, "threads": 1}
    found = verify(module, made.hardened, (inputs.numpy(), y), detector=made.detector, **given)
    assert [gate.name for gate in found.gates if not gate.passed] == []
    assert len(inspect(module, example_input=inputs[:1]).sites) == len(made.report["sites"])
    with pytest.raises(OptionError, match="example_input"):
        inspect(module)
    assert made.report["model"]["batch"] is None
    assert module.training
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())
    with pytest.raises(OptionError, match="example_input"):
        harden(module, (inputs.numpy(), y))


def test_a_frozen_part_of_a_module_in_training_stays_frozen() -> None:
    frozen = torch.nn.BatchNorm1d(16).eval()
    module = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(64, 16), frozen, torch.nn.ReLU(), torch.nn.Linear(16, 4)
    )
    module[0].train()
    assert module.training and not frozen.training
    export_module(module, torch.zeros(2, 1, 8, 8))
    assert [part.training for part in module] == [True, True, False, True, True]
    assert module.training
    with pytest.raises(ModelError, match="cannot export"):
        export_module(module, torch.zeros(2, 7))
    assert [part.training for part in module] == [True, True, False, True, True]


def test_a_failed_gate_is_told_and_files_can_still_be_written(
    case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Bounds that hardly let anything through, and stay so.
    changed = {"start_value": -1.0, "learning_rate": 1e-9, "tightened_fidelity": None}
    low = replace(settings_for("mmac-universal"), **changed)
    monkeypatch.setitem(settings._METHODS, low.method, low)
    made = harden(case.model, case.npz, epochs=1, threads=1)
    assert not made.passed
    made.save(tmp_path / "h.onnx", report=tmp_path / "r.json")
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["passed"] is False
    content = (tmp_path / "h.onnx").read_bytes()
    assert report["files"][0]["sha256"] == hashlib.sha256(content).hexdigest()


def test_save_overwrites_only_when_forced(result, tmp_path: Path) -> None:
    (tmp_path / "d.onnx").write_bytes(b"mine")
    with pytest.raises(OutputError, match="exists"):
        result.save(tmp_path / "h.onnx", detector_output=tmp_path / "d.onnx")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d.onnx"]
    with pytest.raises(OutputError, match="same file"):
        result.save(tmp_path / "h.onnx", report=tmp_path / "h.onnx")
    result.save(tmp_path / "h.onnx", detector_output=tmp_path / "d.onnx", force=True)
    assert (tmp_path / "d.onnx").read_bytes() != b"mine"


def test_the_page_is_of_this_job_and_written_with_the_rest_or_not_at_all(
    case, result, tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    report = result.save(tmp_path / "h.onnx", html=page)
    text = page.read_text().replace("\N{NO-BREAK SPACE}", " ")
    figures = report["figures"]
    for words in (
        "Hardened, and all gates hold",
        f"{100 * figures['hardened']['accuracy']:.2f} %",
        f"{100 * report['sites'][0]['share_above']:.2f} %",
        f"threshold {report['detector']['threshold_score']:.4g}",
        report["files"][0]["sha256"],
        "data:image/png;base64,",
    ):
        assert words in text, words
    with pytest.raises(OutputError, match="exists"):
        result.save(tmp_path / "h2.onnx", html=page)
    with pytest.raises(OutputError, match="same file"):
        result.save(tmp_path / "h2.onnx", report=tmp_path / "r", html=tmp_path / "r")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["h.onnx", "page.html"]
    result.save(tmp_path / "h.onnx", html=page, force=True)
    assert page.read_text().replace("\N{NO-BREAK SPACE}", " ") == text


def test_what_the_page_draws_is_what_was_measured(case, result) -> None:
    material = result.material
    assert material.flow.tensors == ("image", "active", "logits")
    assert material.flow.edges == ((0, 1), (1, 2))
    (site,) = result.report["sites"]
    detail = material.sites["active"]
    np.testing.assert_array_equal(detail.bounds, result.bounds["active"])
    assert detail.highest.max() == np.float32(site["clean_max"])
    assert detail.touched.mean() == pytest.approx(site["share_above"])
    assert material.null.threshold == result.report["detector"]["threshold_score"]
    # The detector itself, which was fitted to these samples, finds them unusual too.
    odd = material.odd
    assert (np.diff(odd.p_value) >= 0).all()
    answers = run(result.detector, odd.x)
    assert np.median(answers[2]) < 0.2 and np.median(odd.p_value) < 0.1


def test_hardening_twice_is_refused(case, result) -> None:
    with pytest.raises(ModelError, match="hardened already"):
        harden(result.hardened, case.npz)


def test_no_site_is_nothing_to_harden(case) -> None:
    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        plain (float[N, 1, 8, 8] image) => (float[N, 64] logits)
        { flat = Flatten (image) logits = Sigmoid (flat) }
        """
    )
    with pytest.raises(NothingToHardenError, match="limited by its own form"):
        harden(proto, case.npz)


def test_wrong_preprocessing_and_label_order_are_told(case) -> None:
    x, y = case.test
    with pytest.raises(DataError, match="order"):
        harden(case.model, (x, (y + 1) % 4))
    with pytest.raises(DataError, match="preprocessing"):
        harden(case.model, (np.random.default_rng(0).random(x.shape, np.float32), y))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"false_positive_rate": 0.0}, "false_positive_rate"),
        ({"calibration_fraction": 1.0}, "calibration_fraction"),
        ({"max_accuracy_drop": -0.1}, "max_accuracy_drop"),
        ({"granularity": "pixel"}, "granularity"),
        ({"method": "magic"}, "mmac"),
        ({"device": "tpu"}, "device"),
        ({"device": "cpu:7"}, "'cpu:7' is not supported; use auto, cpu, cuda or cuda:N"),
        ({"device": 3}, "device is 3"),
        ({"method": 3}, "no method 3"),
        ({"seed": -1}, "seed is -1, expected 0 to 9223372036854775807"),
        ({"seed": 2**63}, "seed is 9223372036854775808, expected 0 to"),
        ({"seed": 0.5}, "seed is 0.5, expected an integer"),
        ({"seed": True}, "seed is True, expected an integer"),
        ({"epochs": 2.5}, "epochs is 2.5, expected an integer, 1 or more"),
        ({"epochs": 0}, "epochs is 0, expected 1 or more"),
        ({"batch_size": "8"}, "batch_size is '8', expected an integer"),
        ({"threads": "2"}, "threads is '2', expected an integer"),
        ({"provider": 3}, "provider is 3, expected text"),
        ({"input_name": b"x"}, "input_name is b'x', expected text"),
        ({"logits_name": 1}, "logits_name is 1, expected text"),
        ({"progress": 3}, "progress is 3, expected a function"),
        ({"preprocessing": {"scale": 1}}, "preprocessing is"),
        ({"detector": "no"}, "detector is 'no', expected True or False"),
        ({"false_positive_rate": "1%"}, "false_positive_rate is '1%', expected a fraction"),
        ({"max_accuracy_drop": float("nan")}, "max_accuracy_drop is nan, expected a fraction"),
        ({"min_accuracy": 80}, "min_accuracy is 80, expected a fraction from 0 to 1"),
    ],
)
def test_bad_options_are_refused_by_name(case, changes, text: str) -> None:
    with pytest.raises(OptionError, match=text):
        harden(case.model, case.npz, **changes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"max_accuracy_drop": "a"}, "max_accuracy_drop is 'a', expected a fraction"),
        ({"max_false_positive_rate": 2}, "max_false_positive_rate is 2, expected a fraction"),
        ({"max_attack_success_rate": None, "threads": "a"}, "threads is 'a', expected an integer"),
        ({"logits_name": 5}, "logits_name is 5, expected text"),
        ({"preprocessing": 1}, "preprocessing is 1"),
    ],
)
def test_bad_options_of_verify_are_refused_by_name(case, changes, text: str) -> None:
    with pytest.raises(OptionError, match=text):
        verify(case.model, case.model, case.npz, **changes)


def test_bad_options_of_inspect_are_refused_by_name(case) -> None:
    with pytest.raises(OptionError, match="logits_name is 5"):
        inspect(case.model, logits_name=5)


@pytest.mark.parametrize(
    ("x", "text"),
    [
        (3.0, r"x is float64 with shape \(\)"),
        (torch.zeros(4, 1, 8, 8, requires_grad=True), "x cannot be made a NumPy array"),
        ([[1.0], [1.0, 2.0]], "x cannot be made a NumPy array"),
    ],
)
def test_arrays_that_are_none_are_refused(case, x, text: str) -> None:
    with pytest.raises(DataError, match=text):
        harden(case.model, (x, np.zeros(4, np.int64)))


def test_wrong_types_are_told_before_anything_is_read() -> None:
    with pytest.raises(OptionError, match="epochs"):
        harden("nowhere.onnx", "nowhere.npz", epochs=2.5)


def test_the_largest_seed_and_numbers_of_numpy_are_taken(case) -> None:
    made = harden(
        case.model,
        case.npz,
        seed=np.uint64(2**63 - 1),
        epochs=np.int32(1),
        max_accuracy_drop=np.float32(0.5),
        threads=1,
    )
    assert json.loads(json.dumps(made.report))["method"]["settings"]["epochs"] == 1
    assert read_provenance(made.hardened)["seed"] == str(2**63 - 1)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_that_is_not_there_is_told(case) -> None:
    with pytest.raises(RuntimeMissingError, match="--device cpu"):
        harden(case.model, case.npz, device="cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_learning_on_cuda_stops_the_backdoor_too(case) -> None:
    made = harden(case.model, case.npz, device="cuda", **QUICK)
    assert made.report["execution"]["device"].startswith("cuda")
    with np.load(case.triggered) as file:
        x = file["x"].astype(np.float32) / 255
    assert (run(made.detector, x)[0].argmax(1) == TARGET).mean() < 0.1


def test_samples_object_is_taken_as_it_is(case) -> None:
    x, y = case.test
    made = harden(case.model, Samples(x, y), epochs=1, threads=1)
    assert made.report["clean_set"]["preprocessing"] is None


def branching(case, limit: float) -> onnx.ModelProto:
    """The case's model, its activation in both branches of an If on the brightest pixel."""
    proto = onnx.load(case.model)
    graph = proto.graph
    (relu,) = [node for node in graph.node if node.op_type == "Relu"]
    place = list(graph.node).index(relu)
    branches = {}
    for branch in ("then_branch", "else_branch"):
        name = f"active_{branch[:4]}"
        inner = onnx.helper.make_node("Relu", relu.input, [name])
        value = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        branches[branch] = onnx.helper.make_graph([inner], branch, [], [value])
    graph.initializer.append(onnx.numpy_helper.from_array(np.float32(limit), "limit"))
    nodes = list(graph.node)
    nodes[place : place + 1] = [
        onnx.helper.make_node("ReduceMax", [graph.input[0].name], ["brightest"], keepdims=0),
        onnx.helper.make_node("Greater", ["brightest", "limit"], ["bright"]),
        onnx.helper.make_node("If", ["bright"], relu.output, **branches),
    ]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx.checker.check_model(proto, full_check=True)
    return proto


def test_an_activation_that_no_clean_sample_reaches_is_uncovered(case) -> None:
    result = harden(branching(case, -1.0), case.folder, method="mmbm", epochs=1, threads=1)
    assert [site["tensor"] for site in result.report["sites"]] == ["active_then"]
    (entry,) = result.report["uncovered"]
    assert entry["tensor"] == "active_else" and "no clean sample" in entry["reason"]
    assert result.report["coverage"] == 0.5
    assert set(result.bounds) == {"active_then"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"method": "mmac"}, "scores by the margin difference alone"),
        ({"false_positive_rate": 0.3}, "all samples would go on"),
        ({"detector": False}, "detector=False"),
    ],
)
def test_two_stages_that_cannot_be_are_told_before_learning(case, options, told: str) -> None:
    seen: list[str] = []
    with pytest.raises(OptionError, match=told):
        harden(
            case.model,
            case.folder,
            **{**QUICK, "cascade": "always", **options},
            progress=lambda step: seen.append(step.phase),
        )
    assert "write" not in seen
    assert sum(phase == "learn" for phase in seen) <= 1


def test_evidence_beyond_float32_leaves_the_margin_and_says_so(case, monkeypatch) -> None:
    found = harden(case.model, case.folder, **QUICK)
    assert found.report["detector"]["score"] == "evidence"
    monkeypatch.setattr(pairing, "_TOLERANCE", -1.0)
    with pytest.raises(RewriteError):  # neither score can be trusted
        harden(case.model, case.folder, **QUICK)
    real = pairing._check_scores

    def check(given, scoring, *, half) -> None:
        # Two stages and one, each with a folded branch and a copy; evidence of the bounded branch.
        if check.calls < 5:
            check.calls += 1
            real(given + 1, scoring, half=half)

    check.calls = 0
    monkeypatch.setattr(pairing, "_check_scores", check)
    found = harden(case.model, case.folder, **QUICK)
    assert found.report["detector"]["score"] == "margin"
    assert any("goes by the margin difference alone" in line for line in found.warnings)


def test_learning_is_steered_by_the_part_it_does_not_learn_from(case, monkeypatch) -> None:
    given = []
    learn = hardening.learn_bounds

    def recorded(classifier, fit, sites, settings, *, calibration, **options):
        given.append((fit, calibration))
        return learn(classifier, fit, sites, settings, calibration=calibration, **options)

    monkeypatch.setattr(hardening, "learn_bounds", recorded)
    found = harden(case.model, case.folder, **QUICK)
    ((fit, calibration),) = given
    assert len(fit) == found.report["clean_set"]["fit"]
    assert len(calibration) == found.report["clean_set"]["calibration"]
    assert not (fit.x[:, None] == calibration.x[None]).all(axis=(2, 3, 4)).any()


@pytest.mark.parametrize("level", ["ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL"])
def test_files_that_onnx_runtime_optimized_are_refused_with_the_way_out(tmp_path, case, level):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(case.model, options, providers=["CPUExecutionProvider"])
    proto = onnx.load(tmp_path / "optimized.onnx")
    assert not [node for node in proto.graph.node if node.op_type == "Relu"]
    report = inspect(tmp_path / "optimized.onnx")
    assert report.sites == ()
    assert ["start from the file" in left.reason for left in report.uncovered] == [True]
    with pytest.raises(NothingToHardenError, match="before ONNX Runtime optimized it"):
        harden(tmp_path / "optimized.onnx", case.folder, **QUICK)


def test_an_operator_of_onnx_runtimes_own_is_refused_with_the_way_out(case):
    proto = planted_images()
    proto.opset_import.add(domain="com.microsoft", version=1)
    relu = next(node for node in proto.graph.node if node.op_type == "Relu")
    after = onnx.helper.make_node("QuickGelu", ["act"], [relu.output[0]], domain="com.microsoft")
    relu.output[0] = "act"
    proto.graph.node.insert(list(proto.graph.node).index(relu) + 1, after)
    with pytest.raises(MmbmError, match=r"QuickGelu node \(output 'active'\).*before ONNX Runtime"):
        harden(proto, case.folder, **QUICK)


def quantized(form: str) -> onnx.ModelProto:
    """The planted model, its input or its activations rounded to integers."""
    proto = planted_images()
    scale = onnx.numpy_helper.from_array(np.asarray(1 / 255, np.float32), "scale")
    zero = onnx.numpy_helper.from_array(np.asarray(0, np.uint8), "zero")
    proto.graph.initializer.extend([scale, zero])
    make = onnx.helper.make_node
    nodes = {
        "activations": [
            make("QuantizeLinear", ["image", "scale", "zero"], ["whole"]),
            make("DequantizeLinear", ["whole", "scale", "zero"], ["rounded"]),
        ],
        "weights": [
            make("QuantizeLinear", ["scale", "scale", "zero"], ["small"]),
            make("DequantizeLinear", ["zero", "scale", "zero"], ["nothing"]),
        ],
    }[form]
    for node in proto.graph.node:
        if node.op_type == "Conv":
            node.input[0] = "rounded" if form == "activations" else "image"
        if node.op_type == "MatMul" and form == "weights":
            nodes.append(make("Add", ["head", "nothing"], ["head2"]))
            node.input[1] = "head2"
    ordered = [*nodes, *proto.graph.node]
    del proto.graph.node[:]
    proto.graph.node.extend(ordered)
    return proto


def test_quantized_activations_are_refused_and_quantized_weights_are_not(case):
    with pytest.raises(ModelError, match=r"is quantized \(QuantizeLinear, output 'whole'\).*then"):
        harden(quantized("activations"), case.folder, **QUICK)
    assert harden(quantized("weights"), case.folder, **QUICK).passed


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError()])
def test_where_memory_is_short_batches_get_smaller(case, monkeypatch, error):
    whole, tried = hardening.learn_bounds, []

    def short(classifier, fit, sites, settings, **options):
        tried.append(settings.batch_size)
        if settings.batch_size > 20:
            raise error
        return whole(classifier, fit, sites, settings, **options)

    monkeypatch.setattr(hardening, "learn_bounds", short)
    result = harden(case.model, case.folder, **QUICK)
    assert tried == [60, 30, 15]
    assert result.report["method"]["settings"]["batch_size"] == 15
    assert "memory did not suffice: learned with batches of 15 samples" in result.warnings


def test_where_memory_suffices_for_nothing_it_is_told(case, monkeypatch):
    tried = []

    def never(*arguments, **_):
        tried.append(arguments[3].batch_size)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to\nallocate 20 GiB")

    monkeypatch.setattr(hardening, "learn_bounds", never)
    with pytest.raises(OptionError, match="cpu has too little memory to learn with a batch of 8"):
        harden(case.model, case.folder, **QUICK)
    assert tried == [60, 30, 15, 8]


def test_torch_out_of_memory_on_the_cpu_is_no_fault_of_the_model(case, monkeypatch):
    proto = planted_images()
    face = find_interface(proto)
    network = Classifier(proto, face, find_sites(proto).sites)
    x = torch.zeros(1, 1, 8, 8).expand(2**40, 1, 8, 8)
    with pytest.raises(MemoryError, match="allocate"):
        network.executor.run({face.input: x}, [face.logits])


def test_a_gradient_that_ends_on_the_way_is_told(case):
    proto = planted_images()
    make = onnx.helper.make_node
    rounded = [
        make("Cast", ["image"], ["whole"], to=onnx.TensorProto.INT32),
        make("Cast", ["whole"], ["rounded"], to=onnx.TensorProto.FLOAT),
        make("Add", ["image", "rounded"], ["both"]),
    ]
    for broken, message in ((rounded[:2], "reaches the input"), (rounded, None)):
        copy = onnx.ModelProto()
        copy.CopyFrom(proto)
        conv = next(node for node in copy.graph.node if node.op_type == "Conv")
        conv.input[0] = broken[-1].output[0]
        nodes = [*broken, *copy.graph.node]
        del copy.graph.node[:]
        copy.graph.node.extend(nodes)
        x, y = draw(240, seed=1)
        clean = (x[:, None].astype(np.float32), y)
        if message is None:
            assert harden(copy, clean, **{**QUICK, "epochs": 1})
        else:
            with pytest.raises(ModelError, match=message):
                harden(copy, clean, **{**QUICK, "epochs": 1})


def test_outputs_that_the_detector_cannot_correct_are_told_of(case):
    proto = planted_images()
    proto.graph.node.append(onnx.helper.make_node("ReduceSum", ["active"], ["energy"], keepdims=0))
    proto.graph.output.append(onnx.helper.make_tensor_value_info("energy", 1, []))
    found = harden(proto, case.folder, **QUICK)
    assert [line for line in found.warnings if "energy" in line] == [
        "output 'energy' does not depend on the logits 'logits': the detector never corrects it"
    ]
    assert harden(case.model, case.folder, **QUICK).warnings == ()

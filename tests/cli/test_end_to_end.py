"""``harden``, then ``verify`` and ``inspect`` of what it wrote, each in a process of its own."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jsonschema
import numpy as np
import onnx
import pytest
from command_line import QUICK, WRITTEN, Job, contents, mmbm
from onnx import numpy_helper
from quadrants import Case

from mmbm_onnx.graph.walk import graphs
from mmbm_onnx.report.schema import load_schema

ARGS = ("--clean-dir", "clean.npz")


# harden


def test_harden_writes_three_files_and_tells_in_json(job: Job) -> None:
    assert (job.done.status, job.done.stderr) == (0, "")
    assert sorted(contents(job.folder)) == sorted(["model.onnx", *WRITTEN])
    told = json.loads(job.done.stdout)
    assert told == json.loads((job.folder / "model.report.json").read_text())
    jsonschema.validate(told, load_schema("harden-report-1"))
    assert told["passed"] is True
    assert told["clean_set"]["samples"] == 240
    written = {entry["role"]: entry for entry in told["files"]}
    assert written["hardened"]["path"] == str(job.hardened)
    for role, entry in written.items():
        content = (job.folder / f"model.{role}.onnx").read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
    original = (job.folder / "model.onnx").read_bytes()
    assert told["model"]["sha256"] == hashlib.sha256(original).hexdigest()


def test_harden_per_tensor_tells_in_a_table(tensor_job: Job) -> None:
    done = tensor_job.done
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.startswith("model      model.onnx (opset 17, 4 classes)\n")
    assert "\n  report    model.report.json\n" in done.stdout + "\n"
    (bound,) = [node for node in load(tensor_job.hardened).graph.node if node.op_type == "Clip"]
    assert bound.output == ["active"]
    report = json.loads((tensor_job.folder / "model.report.json").read_text())
    assert report["method"]["granularity"] == "tensor"
    assert report["sites"][0]["bounds"] == 1


def test_a_failed_gate_exits_with_1_names_it_and_writes_all(tmp_path: Path) -> None:
    # Class 1 is a sum above 5; the reference recipe's bounds start at 1 for each of 4 channels.
    proto = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        loud (float[N, 4] x) => (float[N, 2] logits) <float[4, 2] w, float[2] b>
        { act = Relu(x) logits = Gemm(act, w, b) }
        """
    )
    del proto.graph.input[1:], proto.graph.initializer[:]
    for name, values in {"w": [[0, 1]] * 4, "b": [5, 0]}.items():
        tensor = numpy_helper.from_array(np.asarray(values, np.float32), name)
        proto.graph.initializer.append(tensor)
    onnx.save(proto, tmp_path / "model.onnx")
    x = np.random.default_rng(0).uniform(0, 1, (80, 4)).astype(np.float32)
    y = np.arange(80) % 2
    x[y == 1] += 2
    np.savez(tmp_path / "clean.npz", x=x, y=y)
    args = ("--method", "mmac-reference", "--epochs", 1, "--device", "cpu", "--threads", 1)
    done = mmbm("harden", "model.onnx", *ARGS, *args, cwd=tmp_path)
    assert done.status == 1
    assert "FAIL hardened_accuracy_drop: " in done.stdout
    assert "error" not in done.stderr
    assert sorted(contents(tmp_path)) == sorted(["clean.npz", "model.onnx", *WRITTEN])
    report = json.loads((tmp_path / "model.report.json").read_text())
    failed = [gate["name"] for gate in report["gates"] if not gate["passed"]]
    assert report["passed"] is False
    assert "hardened_accuracy_drop" in failed


def test_nothing_to_harden_exits_with_3_and_writes_nothing(
    inputs: Path, without_torch: dict[str, str]
) -> None:
    proto = load(inputs / "model.onnx")
    (relu,) = [node for node in proto.graph.node if node.op_type == "Relu"]
    relu.op_type = "Abs"
    onnx.save(proto, inputs / "model.onnx")
    before = contents(inputs)
    done = mmbm("harden", "model.onnx", *ARGS, cwd=inputs, env=without_torch)
    assert done.status == 3
    assert done.error == "model.onnx: no activation takes a bound; nothing to harden"
    assert contents(inputs) == before


# verify


def load(path: Path) -> onnx.ModelProto:
    return onnx.load(path)


def verify(job: Job, case: Case, *more: object, **options: object):
    paths = {"hardened": job.hardened, "detector": job.detector, **options}
    return mmbm(
        *("verify", job.folder / "model.onnx", paths["hardened"], "--clean-dir", case.npz),
        *("--detector", paths["detector"], *more),
    )


def failing(stdout: str) -> set[str]:
    return {gate["name"] for gate in json.loads(stdout)["gates"] if not gate["passed"]}


def test_verify_without_torch_accepts_what_harden_wrote(
    job: Job, case: Case, without_torch: dict[str, str]
) -> None:
    done = mmbm(
        *("verify", job.folder / "model.onnx", job.hardened, "--clean-dir", case.folder),
        *("--detector", job.detector, "--triggered", case.triggered, "--format", "json"),
        *("--max-attack-success-rate", 0.1, "--max-false-positive-rate", 0.05),
        env=without_torch,
    )
    assert (done.status, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    jsonschema.validate(told, load_schema("verify-report-1"))
    assert told["passed"] is True
    assert told["measurements"]["original"]["attack_success_rate"] > 0.95
    assert told["measurements"]["hardened"]["robust_accuracy"] > 0.8


def test_verify_exits_with_1_when_the_attack_still_works(job: Job, case: Case) -> None:
    # The original's own decisions are what a detector that never flags would answer.
    blind = load(job.detector)
    thresholds = [
        tensor
        for _, graph in graphs(blind.graph)
        for tensor in graph.initializer
        if tensor.name.endswith("/threshold")
    ]
    assert len(thresholds) == 2  # of either stage
    for tensor in thresholds:
        tensor.CopyFrom(numpy_helper.from_array(np.float32(1e9), tensor.name))
    onnx.save(blind, job.folder.parent / "blind.onnx")
    done = verify(
        *(job, case, "--triggered", case.triggered, "--max-attack-success-rate", 0.1),
        *("--format", "json"),
        detector=job.folder.parent / "blind.onnx",
    )
    assert done.status == 1
    assert failing(done.stdout) == {"detector_threshold", "detector_attack_success_rate"}


@pytest.mark.parametrize("kind", ["folded", "Min"])
def test_verify_exits_with_1_when_files_defend_nothing(
    job: Job, plain_job: Job, case: Case, tmp_path: Path, kind: str
) -> None:
    written = job if kind == "folded" else plain_job
    loose = load(written.hardened)
    (bound,) = [entry for entry in loose.graph.initializer if "mmbm_bound" in entry.name]
    values = np.full_like(numpy_helper.to_array(bound), 1e30)
    bound.CopyFrom(numpy_helper.from_array(values, bound.name))
    onnx.save(loose, tmp_path / "loose.onnx")
    done = verify(written, case, "--format", "json", hardened=tmp_path / "loose.onnx")
    assert done.status == 1
    told = "hardened_unchanged" if kind == "folded" else "detector_bounds"
    assert failing(done.stdout) == {"hardened_effective", told}


def zero_bound(proto: onnx.ModelProto) -> None:
    (bound,) = [entry for entry in proto.graph.initializer if "mmbm_bound" in entry.name]
    bound.raw_data = bytes(len(bound.raw_data))


def change_weight(proto: onnx.ModelProto) -> None:
    (head,) = [entry for entry in proto.graph.initializer if entry.name.startswith("head")]
    raw = bytearray(head.raw_data)
    raw[0] ^= 1
    head.raw_data = bytes(raw)


def swap_branches(proto: onnx.ModelProto) -> None:
    (choice,) = [
        node
        for _, graph in graphs(proto.graph)
        for node in graph.node
        if "mmbm_odd/logits" in node.output
    ]
    assert choice.op_type == "Where"
    flagged, answer, original = choice.input
    choice.input[:] = [flagged, original, answer]


def second_stage(proto: onnx.ModelProto) -> onnx.NodeProto:
    (node,) = [node for node in proto.graph.node if node.op_type == "If"]
    return node


def odd_branch(proto: onnx.ModelProto) -> onnx.GraphProto:
    (graph,) = [a.g for a in second_stage(proto).attribute if a.name == "then_branch"]
    return graph


def set_number(graph: onnx.GraphProto, name: str, number: float = 1e30) -> None:
    (tensor,) = [tensor for tensor in graph.initializer if tensor.name == name]
    values = np.full(list(tensor.dims), number, np.float32)
    tensor.CopyFrom(numpy_helper.from_array(values, name))


def raise_inner_threshold(proto: onnx.ModelProto) -> None:
    set_number(odd_branch(proto), "mmbm_odd/threshold")


def open_gate(proto: onnx.ModelProto) -> None:
    set_number(proto.graph, "mmbm_decision/gate")


def never_go_on(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(numpy_helper.from_array(np.asarray(False), "never"))
    second_stage(proto).input[0] = "never"


def never_enough(proto: onnx.ModelProto) -> None:
    set_number(proto.graph, "mmbm_decision/none", 1e9)


def count_others(proto: onnx.ModelProto) -> None:
    (cast,) = [node for node in proto.graph.node if "mmbm_decision/odd_ones" in node.output]
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.bool_), "no"))
    cast.input[0] = "no"


def number_for_nan(proto: onnx.ModelProto) -> None:
    set_number(odd_branch(proto), "mmbm_odd/nan", 0)


def forget_the_evidence(proto: onnx.ModelProto) -> None:
    for name in ("evidence/weights", "decision/first/per_logit", "decision/first/constant"):
        set_number(proto.graph, f"mmbm_{name}", 0)


def shadow_weight(proto: onnx.ModelProto) -> None:
    (head,) = [tensor for tensor in proto.graph.initializer if tensor.name == "head"]
    other = numpy_helper.from_array(-numpy_helper.to_array(head), "head")
    odd_branch(proto).initializer.append(other)


@pytest.mark.parametrize("kind", ["Min", "Clip", "folded"])
def test_verify_exits_with_1_when_bounds_are_zeroed(
    job: Job, plain_job: Job, tensor_job: Job, case: Case, tmp_path: Path, kind: str
) -> None:
    written = {"Min": plain_job, "Clip": tensor_job, "folded": job}[kind]
    proto = load(written.hardened)
    assert ("Min" if kind == "Min" else "Clip") in {node.op_type for node in proto.graph.node}
    zero_bound(proto)
    onnx.save(proto, tmp_path / "h.onnx")
    done = verify(written, case, "--format", "json", hardened=tmp_path / "h.onnx")
    assert done.status == 1
    told = {"hardened_unchanged"} if kind == "folded" else {"hardened_bounds", "detector_bounds"}
    assert failing(done.stdout) == {"hardened_accuracy_drop", *told}


@pytest.mark.parametrize(
    ("role", "change", "gates"),
    [
        ("hardened", change_weight, {"hardened_unchanged"}),
        ("detector", change_weight, {"detector_unchanged"}),
        ("detector", swap_branches, {"detector_unflagged_identical"}),
        ("detector", raise_inner_threshold, {"detector_threshold"}),
        ("detector", open_gate, {"detector_threshold"}),
        ("detector", never_go_on, {"detector_threshold"}),
        ("detector", never_enough, {"detector_threshold"}),
        ("detector", count_others, {"detector_threshold"}),
        ("detector", number_for_nan, {"detector_threshold"}),
        ("detector", forget_the_evidence, {"detector_threshold"}),
        ("detector", shadow_weight, {"detector_threshold"}),
    ],
)
def test_verify_exits_with_1_when_a_graph_was_changed(
    job: Job,
    case: Case,
    tmp_path: Path,
    role: str,
    change: Callable[[onnx.ModelProto], None],
    gates: set[str],
) -> None:
    proto = load(job.folder / f"model.{role}.onnx")
    change(proto)
    onnx.save(proto, tmp_path / "changed.onnx")
    done = verify(job, case, "--format", "json", **{role: tmp_path / "changed.onnx"})
    assert done.status == 1
    assert gates <= failing(done.stdout)
    others = {"hardened", "detector"} - {role}
    assert not any(name.startswith(tuple(others)) for name in failing(done.stdout))


def test_verify_exits_with_1_for_graphs_of_another_model(
    job: Job, case: Case, tmp_path: Path
) -> None:
    other = load(case.model)
    change_weight(other)
    onnx.save(other, tmp_path / "other.onnx")
    args = ("--detector", job.detector, "--clean-dir", case.npz)
    done = mmbm("verify", tmp_path / "other.onnx", job.hardened, *args)
    assert done.status == 1
    for role in ("hardened", "detector"):
        assert f"FAIL {role}_provenance: was made from the model " in done.stdout
    assert done.stdout.endswith("FAIL: a gate failed\n")


def test_verify_exits_with_2_for_what_is_no_model(
    job: Job, case: Case, tmp_path: Path, without_torch: dict[str, str]
) -> None:
    (tmp_path / "text.onnx").write_text("This is no model.\n" * 20)
    args = ("verify", job.folder / "model.onnx", job.hardened, "--clean-dir", case.npz)
    done = mmbm(*args, "--detector", tmp_path / "text.onnx", env=without_torch)
    assert done.status == 2
    assert done.error.startswith(f"{tmp_path / 'text.onnx'}: not an ONNX model")


def test_verify_takes_samples_of_one_class(job: Job, case: Case, tmp_path: Path) -> None:
    shutil.copytree(case.folder / "1", tmp_path / "clean" / "1")
    done = mmbm(
        *("verify", job.folder / "model.onnx", job.hardened, "--clean-dir", tmp_path / "clean")
    )
    assert done.status == 0
    (warning,) = done.stderr.splitlines()
    assert warning.startswith("mmbm-onnx: warning: ")
    assert "all samples are of one class (1)" in warning


# inspect


def test_inspect_without_torch(job: Job, without_torch: dict[str, str], tmp_path: Path) -> None:
    done = mmbm("inspect", job.folder / "model.onnx", "--format", "json", env=without_torch)
    assert (done.status, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    jsonschema.validate(told, load_schema("inspection-1"))
    assert [site["tensor"] for site in told["sites"]] == ["active"]
    done = mmbm("inspect", job.detector, env=without_torch)
    assert done.status == 0
    assert "already hardened by mmbm-onnx" in done.stdout
    (tmp_path / "text.onnx").write_text("no model")
    done = mmbm("inspect", tmp_path / "text.onnx", env=without_torch)
    assert done.status == 2
    assert "not an ONNX model" in done.error


def test_help_needs_no_torch(without_torch: dict[str, str]) -> None:
    done = mmbm("harden", "--help", env=without_torch)
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: mmbm-onnx harden")


def test_harden_itself_needs_torch_and_says_so(inputs: Path, without_torch: dict[str, str]) -> None:
    done = mmbm("harden", "model.onnx", *ARGS, *QUICK, cwd=inputs, env=without_torch)
    assert done.status == 2
    assert "no torch here" in done.stderr
    assert sorted(contents(inputs)) == ["clean.npz", "model.onnx"]

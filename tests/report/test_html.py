"""The pages say what the reports say, and nothing in them runs or is loaded."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
import toy_models
from page_material import (
    details,
    failed_report,
    images,
    inputs,
    material,
    scanned,
    scores,
    shown,
    trigger,
)
from PIL import Image
from test_json_report import report

from mmbm_onnx.evaluation.verification import verify_graphs
from mmbm_onnx.graph.flow import Flow
from mmbm_onnx.report.html.figures import bounds_strip, gutter
from mmbm_onnx.report.html.harden import harden_page
from mmbm_onnx.report.html.material import ScanOutcome, SiteDetail
from mmbm_onnx.report.html.pictures import view_of
from mmbm_onnx.report.html.score_figures import (
    p_value_curve,
    p_value_figure,
    roc_figure,
    roc_points,
    score_figure,
)
from mmbm_onnx.report.html.svg import Scale, round_values
from mmbm_onnx.report.html.verify import verify_page
from mmbm_onnx.report.json_report import with_files
from mmbm_onnx.rewriting.null import fit_null

HOSTILE = "</script><img src=x onerror=alert(1)>\"'\u202e\x07{{ 7*7 }}"
VOID = {"meta", "img", "br", "line", "rect", "path", "circle"}


class Reader(HTMLParser):
    """Elements, attributes and text of a page; checks that elements are closed."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(page.decode().replace("\N{NO-BREAK SPACE}", " "))
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)
            if {"td", "th"} & set(self.open):
                self.rows[-1][-1] += data

    @property
    def figures(self) -> set[str]:
        """Names of the figures."""
        drawn = [found["aria-labelledby"] for tag, found in self.elements
                 if tag == "svg" and found.get("role") == "img"]  # fmt: skip
        assert len(set(drawn)) == len(drawn)
        return {names.split()[0].removesuffix("-t") for names in drawn}

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def sources(self) -> list[str]:
        return [found["src"] for tag, found in self.elements if tag == "img"]


def pixels(uri: str) -> np.ndarray:
    kind, data = uri.split(",", 1)
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def page(told: dict[str, Any] | None = None, **changes: Any) -> Reader:
    return Reader(harden_page(told or report(), material(**changes)))


def verified() -> dict[str, Any]:
    result = verify_graphs(
        toy_models.original(),
        toy_models.hardened(),
        toy_models.clean(),
        detector=toy_models.detector(),
        triggered=toy_models.triggered(),
    )
    return result.to_dict()


def test_the_verdict_comes_first_and_in_words() -> None:
    read = page()
    headings = [tag for tag, _ in read.elements if tag in ("h1", "h2")]
    assert headings[0] == "h1" and headings.count("h1") == 1
    assert "Hardened, and all gates hold" in read.text
    assert "Whether an attack on this model is stopped was not measured" in read.text
    failed = page(failed_report())
    assert "A gate failed: do not deploy as it is" in failed.text
    assert "hardened accuracy drop : accuracy 50%" in failed.text


def test_numbers_are_those_of_the_report() -> None:
    told = with_files(report(), {})
    read = page(told)
    rows = {row[0]: row for row in read.rows if row}
    assert rows["hardened"][1:3] == ["98.00 %", "98.00 %"]
    assert rows["detector"][1:3] == ["100.00 %", "100.00 %"]
    assert rows["detector"][3] == "0.00 %of 30; asked for 1.00 %"
    assert rows["detector"][4] == "1 ms1.90 \N{MULTIPLICATION SIGN} the original"
    assert rows["hardened accuracy drop"][1:4] == ["holds", "2.00 %", "at most 2.00 %"]
    for words in (
        "1 of 2 activations take an upper bound (50.00 %)",
        "is right on 98.00 %, 2 points less than the original",
        "25.00 % up to 50 %",
        "0.5 to 1",
        "no bound: limited by its own form",
        "threshold 1.5",
        "60: 30 to learn, 30 to calibrate",
        "Warnings one",
        told["model"]["sha256"],
    ):
        assert words in read.text, words


@pytest.mark.parametrize("labelled", [True, False])
def test_a_hardening_says_what_its_figures_are_of(labelled: bool) -> None:
    told = report()
    told["method"]["settings"]["judged_on"] = "calibration"
    told["detector"]["null_samples"] = 60  # evidence is of both parts
    told["clean_set"]["has_labels"] = labelled
    if not labelled:
        for found in filter(None, told["figures"].values()):
            found["accuracy"] = None
    read = page(told)
    kept, steered, measured = (
        ("accuracy", "whose accuracy also told", "Accuracy and agreement were measured")
        if labelled
        else (
            "agreement with the original",
            "on which agreement with the original also told",
            "It was measured",
        )
    )
    for words in (
        f"Gates are on {kept} and sound numbers",
        f"On the 30 clean samples kept for calibration, {steered} how hard bounds may press",
        "What is flagged was measured on 60.",
        "The detector flags 0.00 % of 60 clean samples",
        f"{measured} on 30 samples, the share that is flagged on 60.",
    ):
        assert words in read.text, words
    assert "All figures" not in read.text
    assert ("accuracy also told" in read.text) == labelled
    rows = {row[0]: row for row in read.rows if row}
    assert rows["detector"][3] == "0.00 %of 60; asked for 1.00 %"


def test_a_verification_without_labels_shows_agreement() -> None:
    clean = replace(toy_models.clean(), y=None)
    told = verify_graphs(
        toy_models.original(),
        toy_models.hardened(),
        clean,
        detector=toy_models.detector(),
    ).to_dict()
    assert not told["measurements"]["labelled"]
    told["measurements"]["hardened"]["agreement"] = 0.875
    read = Reader(verify_page(told, None))
    assert [row[:2] for row in read.rows[:4]] == [
        ["Graph", "Agrees with the original"],
        ["original", "itself"],
        ["hardened", "87.50 %"],
        ["detector", "100.00 %"],
    ]
    assert "Accuracy" not in read.text
    assert Reader(verify_page(verified(), None)).rows[0][1] == "Accuracy (ACC)"


def test_figures_of_known_attacks_are_those_of_the_benchmark() -> None:
    told = report()
    told["benchmark"] = {"attacks": [], "graphs": []}
    assert "not on this model" not in page(told).text  # a method that was not measured
    attack = {"attack": "odd-one", "adaptive": True, "victims": 3, "original": 0.9, "hardened": 0.5,
              "detector": 0.25, "hardened_worst": 0.6, "detector_worst": 0.3}  # fmt: skip
    missed = {"graph": "detector", "stopped": [], "missed": ["odd-one"]}
    told["benchmark"] = {"attacks": [attack], "graphs": [missed]}
    read = page(told)
    assert "odd-one: original 90.00 %, hardened 50.00 %, detector 25.00 %" in read.text
    assert (
        "the detector lets more than one in ten triggered samples through of odd-one" in read.text
    )


def test_nothing_runs_and_nothing_is_loaded() -> None:
    for data in (
        harden_page(report(), material(), scanned(trigger())),
        verify_page(verified(), details()),
    ):
        read = Reader(data)
        policy = next(found["content"] for tag, found in read.elements if "http-equiv" in found)
        assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
        tags = {tag for tag, _ in read.elements}
        assert not tags & {"script", "link", "iframe", "object", "embed", "base", "form", "use"}
        for _, found in read.elements:
            assert not [name for name in found if name.startswith("on")]
            for name in ("src", "href", "data", "action", "xlink:href"):
                assert found.get(name, "#").startswith(("#", "data:image/png;base64,"))
        assert b"url(" not in data and b"@import" not in data and b"http://" not in data


def hostile(value: Any) -> Any:
    """A report in which every free text is hostile."""
    if isinstance(value, dict):
        return {key: hostile(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [hostile(inner) for inner in value]
    known = {"act", "t", "x", "logits", "original", "hardened", "detector", "evidence", "margin",
             "gaussian", "conformal", "leave-one-out", "at_most", "at_least", "holds", "fraction",
             "count", "ratio", ""}  # fmt: skip
    return HOSTILE if isinstance(value, str) and value not in known else value


def test_hostile_names_are_text_everywhere() -> None:
    told = hostile(with_files(report(), {}))
    told["clean_set"]["class_names"] = [HOSTILE] * 3
    told["sites"][0]["tensor"] = told["uncovered"][0]["tensor"] = HOSTILE
    for flow in (Flow((HOSTILE, HOSTILE + "2"), ((0, 1),)), material().flow):
        made = material(flow=flow, sites={HOSTILE: material().sites["act"]})
        data = harden_page(told, made, scanned(trigger(note=HOSTILE)))
        read = Reader(data)
        assert "script" not in {tag for tag, _ in read.elements}
        assert all(source.startswith("data:") for source in read.sources())
        assert "onerror" not in {name for _, found in read.elements for name in found}
        assert b"onerror" in data  # it is there, as text
        assert "{{ 7*7 }}" in read.text and "49 " not in read.text.split("{{")[0]
        assert "\u202e" not in data.decode() and b"\x07" not in data
    seen = verified()
    data = verify_page(hostile(seen), details())
    assert "onerror" not in {name for _, found in Reader(data).elements for name in found}


def test_names_of_tensors_that_are_hostile_but_not_text_are_written() -> None:
    told = report()
    told["model"]["path"] = "mod\udce4l.onnx"  # a file name that is not UTF-8
    harden_page(told, material()).decode()


def test_the_same_report_gives_the_same_bytes() -> None:
    assert harden_page(report(), material()) == harden_page(report(), material())
    assert verify_page(verified(), details()) == verify_page(verified(), details())


@pytest.mark.parametrize(
    "changes",
    [
        {"detector": None, "figures": {**report()["figures"], "detector": None}},
        {"latency": []},
        {"gates": []},
        {"uncovered": [], "coverage": 1.0},
        {"clean_set": {**report()["clean_set"], "has_labels": False, "preprocessing": None}},
    ],
)
def test_pages_of_less(changes: dict[str, Any]) -> None:
    told = {**report(), **changes}
    if told["detector"] is None:
        Reader(harden_page(told, material(null=None, odd=None)))
    Reader(harden_page(told, material()))
    Reader(harden_page(told, None))


def test_without_material_the_page_has_its_tables() -> None:
    told = report()
    read = Reader(harden_page(told, None))
    assert "act" in read.text and "98.00 %" in read.text
    assert read.figures == {"attacks", "latency"}
    told["benchmark"] = {"attacks": [], "graphs": []}
    assert Reader(harden_page(told, None)).figures == {"latency"}


def test_a_hardening_has_its_figures_with_a_scan_and_without() -> None:
    told = report()
    attack = {"attack": "odd-one", "adaptive": False, "victims": 3, "original": 0.9,
              "hardened": 0.5, "detector": 0.25, "hardened_worst": 0.6,
              "detector_worst": 0.3}  # fmt: skip
    missed = {"graph": "detector", "stopped": [], "missed": ["odd-one"]}
    told["benchmark"] = {"attacks": [attack], "graphs": [missed]}
    for triggers in ((), (trigger(), trigger(class_index=2, suspected=False))):
        read = Reader(harden_page(told, material(), scanned(*triggers) if triggers else None))
        assert read.figures == {"scores", "p-values", "latency", "attacks", "strip-1"}
        assert len(read.sources()) == 4 + len(triggers) * (1 + 3 * 3)
        assert sum(tag == "article" for tag, _ in read.elements) == len(triggers)


def test_a_verification_tells_of_attack_and_repair() -> None:
    told = verified()
    read = Reader(verify_page(told, details()))
    found = told["measurements"]
    for role in ("original", "hardened", "detector"):
        row = next(row for row in read.rows if row and row[0] == role)
        for cell, name in ((1, "accuracy"), (2, "attack_success_rate"), (3, "robust_accuracy")):
            assert row[cell].startswith(f"{100 * found[role][name]:.2f} %")
    assert "ROC curve , area under it" in read.text
    assert "The attack succeeds on 100.00 % of 40 triggered samples with the original" in read.text
    assert "With the hardened graph alone it succeeds on" in read.text
    assert "No gate is on that" in read.text
    limited = {**told, "gates": [*told["gates"], {**told["gates"][0],
               "name": "detector_attack_success_rate"}]}  # fmt: skip
    assert "No gate is on that" not in Reader(verify_page(limited, details())).text
    assert read.figures == {"scores", "p-values", "roc"}
    assert len(read.sources()) == 4 + 6
    told["measurements"]["triggered"] = 0
    for role in ("original", "hardened", "detector"):
        for name in ("attack_success_rate", "robust_accuracy", "roc_auc", "true_positive_rate",
                     "defense_effectiveness"):  # fmt: skip
            told["measurements"][role][name] = None
    none = np.zeros(0, np.float32)
    seen = details(triggered=None)
    seen = replace(seen, scores=replace(seen.scores, attacked=none, attacked_p=none))
    read = Reader(verify_page(told, seen))
    assert "No triggered samples were given" in read.text
    assert read.figures == {"scores", "p-values"}
    Reader(verify_page(told, None))


def test_a_section_says_how_to_scan_where_no_scan_was_made() -> None:
    section = page().text.split("No scan was made")[1]
    assert section.index("--scan") < section.index("It looks for the smallest pattern")


def test_a_scan_is_told_without_pictures_too() -> None:
    text = Reader(harden_page(report(), material(), ScanOutcome(True, (1, 2)))).text
    assert "No scan was made" not in text
    assert "finds the original suspicious: b, c look like targets of a backdoor" in text
    assert "What it found are no pictures" in text
    assert "all gates hold; the original looks backdoored" in text
    many = Reader(harden_page(report(), material(), ScanOutcome(True, tuple(range(20))))).text
    assert "class 7 and 12 more look like targets" in many
    text = Reader(harden_page(report(), material(), ScanOutcome(judged=True))).text
    assert "The scan finds no class suspect" in text
    assert "suspicious" not in text


def test_a_scan_without_a_verdict_is_no_good_news() -> None:
    text = Reader(harden_page(report(), material(), ScanOutcome(judged=False))).text
    assert text.count("came to no verdict") == 2
    assert "finds no class suspect" not in text


@pytest.mark.parametrize(
    ("shape", "sample"),
    [
        ((None, 1, 8, 8), (1, 8, 8)),
        ((None, 3, 8, 8), (3, 8, 8)),
        ((None, 8, 8, 1), (8, 8, 1)),
        ((None, 8, 8, 3), (8, 8, 3)),
    ],
)
def test_a_recovered_trigger_is_shown_beside_samples_that_it_turns(shape, sample) -> None:
    given = trigger(sample)
    data = harden_page(report(), material(inputs=inputs(shape), odd=None), scanned(given))
    read = Reader(data)
    assert "turns 87.50 % of them. Root mean square: 3.21 % of the input's range" in read.text
    assert "The scan finds b suspect" in read.text
    sources = [pixels(source) for source in read.sources()]
    assert len(sources) == 1 + 3 * 3
    channels = sample[0] if sample[0] < 8 else sample[-1]
    assert {found.shape for found in sources} == {(8, 8) if channels == 1 else (8, 8, 3)}
    # The pattern around mid-grey, amplified so that its largest value is white.
    view = view_of(inputs(shape))
    assert view is not None
    assert view.gain(given.pattern) == pytest.approx(2)
    assert set(np.unique(sources[0])) == {128, 255}
    expected = np.moveaxis(given.before, 1, -1) if shape[1] in (1, 3) else given.before
    assert np.array_equal(sources[1].reshape(8, 8, -1), np.rint(255 * expected[0]))
    assert not np.array_equal(sources[1], sources[2])


def test_what_is_no_image_is_told_in_a_sentence() -> None:
    flat = inputs((None, 12))
    odd = shown(images(4, (12,)))
    data = harden_page(report(), material(inputs=flat, odd=odd), scanned(trigger((12,))))
    read = Reader(data)
    assert read.sources() == []
    assert "not an image, so the pattern cannot be shown" in read.text
    assert "Sample 1" in read.text


def test_a_trigger_whose_parts_do_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit a pattern"):
        trigger(before=images(2, (1, 4, 4)))
    with pytest.raises(ValueError, match="do not fit a pattern"):
        trigger(pattern=np.zeros((1, 4, 4), np.float32))
    with pytest.raises(ValueError, match="decisions"):
        trigger(decided_after=np.zeros(9, np.int64))
    with pytest.raises(ValueError, match="not a fraction"):
        trigger(flipped_share=87.5)


def test_pictures_undo_the_preprocessing() -> None:
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (3, 8, 8)).astype(np.float64)
    mean, std = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.3, 0.4])
    x = ((raw / 255 - mean[:, None, None]) / std[:, None, None]).astype(np.float32)
    seen = inputs((None, 3, 8, 8), mean=list(mean), std=list(std), channel_order="bgr")
    view = view_of(seen)
    assert view is not None
    found = pixels(view.picture(x))
    assert np.array_equal(found, np.moveaxis(raw, 0, -1)[..., ::-1])


def test_samples_taken_as_they_are_are_shown_between_their_ends() -> None:
    view = view_of(replace(inputs(), preprocessing=None, low=-2.0, high=2.0))
    assert view is not None
    sample = np.array([-2.0, 0.0, 2.0, 9.0], np.float32).reshape(1, 2, 2)
    assert pixels(view.picture(sample)).ravel().tolist() == [0, 128, 255, 255]
    assert view_of(None) is None
    features = replace(inputs((None, 8, 8)), preprocessing=None)
    assert view_of(features) is None


def test_large_pictures_are_made_smaller_and_nan_is_grey() -> None:
    view = view_of(inputs((None, 1, 300, 200)))
    assert view is not None
    found = pixels(view.picture(np.full((1, 300, 200), np.nan, np.float32)))
    assert max(found.shape) == 128
    assert set(np.unique(found)) == {128}


def test_the_roc_curve_has_the_area_that_is_measured() -> None:
    from mmbm_onnx.evaluation.metrics import roc_auc

    clean, attacked = scores(70, 1), scores(50, 2, 0.8)
    clean[:20], attacked[:10] = 0.5, 0.5  # ties
    points = np.array(roc_points(clean, attacked))
    assert points[0].tolist() == [0, 0] and points[-1].tolist() == [1, 1]
    assert (np.diff(points, axis=0) >= 0).all()
    area = float(np.trapezoid(points[:, 1], points[:, 0]))
    assert area == pytest.approx(roc_auc(attacked, clean))


def test_a_strip_shows_bounds_in_order_and_what_is_cut() -> None:
    detail = SiteDetail(
        np.array([2.0, 1.0, 4.0], np.float32),
        np.array([4.0, 0.5, 2.0], np.float32),
        np.zeros(3),
    )
    made = str(bounds_strip("s", detail))
    # From 4 at the top, y = 2, to 0 at y = 35.
    assert re.findall(r'class="passes" d="(.*?)"', made) == [
        "M0.5 30.9H79.5V35.0H0.5ZM80.5 18.5H159.5V35.0H80.5ZM160.5 18.5H239.5V35.0H160.5Z"
    ]
    assert re.findall(r'class="cut" d="(.*?)"', made) == ["M80.5 2.0H159.5V18.5H80.5Z"]
    assert 'class="bound" d="M0 26.75L80 26.75L80 18.5L160 18.5L160 2L240 2"' in made
    assert "3 bounds from 1 to 4" in made and "up to 4" in made


def test_many_channels_are_thinned_and_one_bound_is_drawn_over_all() -> None:
    highest = np.arange(1, 1001, dtype=np.float32)
    detail = SiteDetail(np.array([500.0], np.float32), highest, np.array([0.5]))
    made = str(bounds_strip("s", detail))
    (passes,), (cut,) = (
        re.findall(rf'class="{kind}" d="(.*?)"', made) for kind in ("passes", "cut")
    )
    assert passes.count("M") == 96
    assert 46 <= cut.count("M") <= 50


def bars(markup: str, kind: str) -> list[float]:
    return [float(x) for x in re.findall(rf'<rect class="{kind}" x="([-0-9.]+)"', markup)]


def test_scores_stand_on_their_side_of_the_threshold() -> None:
    for far in (7.0, 500.0):
        clean, attacked = scores(200, 1), scores(100, 2) + far
        made = str(score_figure("s", clean, 3.0, attacked=attacked))
        (line,) = re.findall(r'<line class="threshold" x1="([0-9.]+)"', made)
        assert max(bars(made, "clean")) < float(line) <= min(bars(made, "attacked"))
    (line,) = re.findall(
        r'<line class="threshold" x1="([0-9.]+)"', str(score_figure("s", clean, 3.0))
    )
    clean[:2] = 3.0, np.nextafter(np.float32(3), np.float32(9))  # at the threshold, and just above
    made = str(score_figure("s", clean, 3.0))
    assert sum(x > float(line) for x in bars(made, "clean")) == 1
    assert "threshold" not in str(score_figure("s", clean, None))


def test_scores_that_are_not_finite_do_not_stop_the_page() -> None:
    odd = np.array([np.nan, np.inf, -np.inf, 0.0, 1.0], np.float32)
    assert "NaN" not in str(score_figure("s", odd, 0.5, attacked=odd))
    assert "svg" in str(score_figure("s", np.full(3, np.nan, np.float32), None))
    assert "svg" in str(score_figure("s", np.ones(3, np.float32), 1.0))


def test_scores_of_any_size_and_place_can_be_drawn() -> None:
    rng = np.random.default_rng(0)
    for _ in range(100):
        size, place = 10.0 ** rng.uniform(-6, 12), rng.normal() * 10.0 ** rng.uniform(-3, 6)
        clean = (place + rng.normal(size=rng.integers(1, 60)) * size).astype(np.float32)
        far = clean[:1].repeat(3) + np.float32(size) * np.float32(10.0 ** rng.uniform(-2, 5))
        limit = rng.choice([float(clean.max()), place, np.inf, -np.inf])
        text = str(score_figure("s", clean, float(limit), attacked=far))
        text += str(roc_figure("r", clean, far, float(limit), 0.5))
        if len(clean) > 1:
            text += str(p_value_curve("p", fit_null(clean, float(rng.uniform(1e-4, 0.4)))))
        drawn = re.sub(r"<(title|desc|text).*?</\1>", "", text)
        assert "nan" not in drawn and "inf" not in drawn
        places = [float(x) for x in re.findall(r' (?:x|x1|x2|cx)="([-0-9.]+)"', drawn)]
        assert places and min(places) >= -1 and max(places) <= 461


def test_p_values_that_are_none_do_not_stop_the_page() -> None:
    odd = np.array([np.nan, np.inf, -1.0, 0.5, 7.0], np.float32)
    assert "svg" in str(p_value_figure("p", odd, odd))
    assert "svg" in str(p_value_figure("p", odd[:1], odd[1:3]))


@pytest.mark.parametrize("kind", ["linear", "log", "far"])
def test_scales_keep_order_ends_and_their_inverse(kind: str) -> None:
    scale = Scale(0.01, 1000, 40, 440, kind, knee=2.0)
    places = [scale(value) for value in (0.001, 0.01, 0.5, 1.9, 2.1, 50, 1000, 2000)]
    assert places == sorted(places)
    assert places[0] == places[1] == 40 and places[-1] == places[-2] == 440
    for share in (0.0, 0.1, 0.4, 0.9, 1.0):
        assert scale(scale.value(share)) == pytest.approx(40 + 400 * share)
    ticks = scale.ticks(6)
    assert ticks == sorted(ticks) and 2 <= len(ticks) <= 14
    assert all(0.01 <= tick <= 1000 or tick == 0 for tick in ticks)


def test_ticks_are_round() -> None:
    assert round_values(-2.3, 3.1, 6) == [-2, -1, 0, 1, 2, 3]
    assert round_values(1, 1, 5) == [1]


def test_a_connection_past_others_gets_a_lane_and_ends_where_it_should() -> None:
    flow = Flow(("x", "a", "b", "c", "logits"), ((0, 1), (1, 2), (1, 3), (2, 3), (3, 4)))
    slices, left_out = gutter(flow, [True, True, False, True, True])
    assert left_out == 0
    curves = [str(part).count("<path") for part in slices]
    assert curves == [0, 1, 0, 1, 0]
    assert [str(part).count("<line") for part in slices] == [1, 2, 3, 2, 1]
    assert "node open" in slices[2] and "node site" in slices[1] and "node end" in slices[0]


def test_dense_networks_leave_connections_out_and_say_so() -> None:
    count = 14
    names = ("x", *(f"a{index}" for index in range(count)), "logits")
    edges = tuple((i, j) for i in range(count + 2) for j in range(i + 1, count + 2))
    flow = Flow(names, edges)
    _, left_out = gutter(flow, [True] * len(names))
    assert left_out > 0
    read = page(flow=flow)
    assert f"{left_out} more connections are not drawn" in read.text

"""Pages as a reader sees them: in Chromium, wide and on a phone, light and dark, on paper."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import Browser, find, started
from page_material import details, failed_report, material, scanned, scores, shown, trigger
from PIL import Image
from test_html import HOSTILE, verified
from test_json_report import report

from mmbm_onnx.evaluation.details import Scores
from mmbm_onnx.graph.flow import Flow
from mmbm_onnx.report.html.harden import harden_page
from mmbm_onnx.report.html.material import SiteDetail
from mmbm_onnx.report.html.verify import verify_page

PROGRAM = find()
pytestmark = pytest.mark.skipif(
    PROGRAM is None, reason="no Chromium found; install one, or name it in CHROMIUM"
)

# What is wrong with a page, in words. Read, not run by the page itself.
FAULTS = """(() => {
  const faults = [];
  const seen = element => element.getClientRects().length > 0;
  if (document.documentElement.scrollWidth > innerWidth)
    faults.push(`scrolls sideways: ${document.documentElement.scrollWidth} of ${innerWidth}`);
  for (const image of document.images)
    if (!image.naturalWidth || !image.alt) faults.push(`image missing: ${image.alt}`);
  for (const figure of document.querySelectorAll("svg.figure, svg.strip")) {
    const box = figure.getBoundingClientRect();
    if (box.width < 60 || box.height < 20) faults.push(`figure missing: ${figure.textContent}`);
    if (!figure.querySelector("title").textContent || !figure.querySelector("desc").textContent)
      faults.push("figure without words");
    for (const text of figure.querySelectorAll("text")) {
      const own = text.getBoundingClientRect();
      if (own.left < box.left - 9 || own.right > box.right + 9 || own.bottom > box.bottom + 4)
        faults.push(`text leaves its figure: ${text.textContent}`);
      if (own.height < 9) faults.push(`small text: ${text.textContent} ${own.height}`);
    }
    const texts = [...figure.querySelectorAll("text")].map(t => [t, t.getBoundingClientRect()]);
    for (const [one, a] of texts) for (const [two, b] of texts)
      if (one !== two && Math.min(a.right, b.right) - Math.max(a.left, b.left) > 2 &&
          Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 5)
        faults.push(`texts collide: ${one.textContent} and ${two.textContent}`);
  }
  const level = colour => {
    const [r, g, b] = colour.match(/[0-9.]+/g).map(v => v / 255)
      .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (!/, 0\\)$|transparent/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  for (const element of document.querySelectorAll("main *, header *, footer *")) {
    if (![...element.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !seen(element))
      continue;
    const style = getComputedStyle(element);
    if (element.closest("title, desc")) continue;
    const ink = level(element.closest("svg") ? style.fill : style.color);
    const paper = level(behind(element));
    const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (contrast < 4.5) faults.push(`contrast ${contrast.toFixed(2)}: ${element.textContent}`);
  }
  const ids = [...document.querySelectorAll("[id]")].map(element => element.id);
  if (new Set(ids).size !== ids.length) faults.push("an id twice");
  for (const link of document.querySelectorAll("a"))
    if (!document.querySelector(link.getAttribute("href"))) faults.push(`dead ${link.href}`);
  for (const li of document.querySelectorAll(".map > li:not(.head) > *"))
    if (seen(li) && li.getBoundingClientRect().bottom > li.parentElement.getBoundingClientRect().bottom + 3)
      faults.push(`leaves its row: ${li.textContent}`);
  return faults;
})()"""  # noqa: E501
# Names of the figures that are to be seen.
DRAWN = """[...document.querySelectorAll("svg.figure, svg.strip")]
  .filter(figure => figure.getClientRects().length > 0)
  .filter(figure => figure.querySelector("path, rect, circle"))
  .map(figure => figure.querySelector("title").id.replace(/-t$/, "")).sort()"""
OF_HARDENING = {"scores", "p-values", "latency", "strip-1"}
OF_VERIFYING = {"scores", "p-values", "roc"}
FIGURES = {
    "harden": OF_HARDENING | {"attacks"},
    "failed": OF_HARDENING,
    "hostile": OF_HARDENING,
    "bare": {"latency"},
    "verify": OF_VERIFYING,
    "far": OF_VERIFYING,
    "missed": OF_VERIFYING,
    "words": OF_VERIFYING,
}


def pages() -> dict[str, bytes]:
    attacks = [
        {"attack": name, "adaptive": name.startswith("adaptive"), "victims": 3, "original": 0.97,
         "hardened": rate, "detector": rate / 4}
        for name, rate in (("badnets-one-to-one", 0.39), ("adaptive-clipped", 0.8), ("sig", 0.0))
    ]  # fmt: skip
    told = report()
    told["benchmark"] = {"graph": "detector", "attacks": attacks}
    told["benchmark"] |= {"stopped": ["sig"], "missed": ["adaptive-clipped"]}
    told["latency"] = [
        {**entry, "batch_size": size} for size in (1, 16) for entry in report()["latency"]
    ]
    scan = scanned(trigger(count=8), trigger((1, 8, 8), class_index=2, suspected=False))
    hostile = report()
    hostile["model"]["path"] = hostile["sites"][0]["tensor"] = HOSTILE * 6
    hostile["uncovered"][0] = {"tensor": HOSTILE, "op_type": "Tanh" * 20, "reason": "why " * 60}
    flow = Flow(("x", HOSTILE * 6, HOSTILE, "logits"), ((0, 1), (1, 2), (0, 2), (2, 3), (1, 3)))
    wide = SiteDetail(*(np.linspace(0.1, 1, 2048, dtype=kind) for kind in ("f4", "f4", "f8")))
    strange = material(flow=flow, sites={HOSTILE * 6: wide})
    far = details()
    assert far.scores is not None
    far = replace(far, scores=replace(far.scores, attacked=far.scores.attacked * 90))
    seen = verified()
    # Attacks that no score tells from clean samples: the threshold is at (0, 0) of the ROC curve.
    few, p_values = scores(100, 2), np.linspace(0.002, 1, 100)
    missed = details(scores=Scores(few, p_values, few[:60], p_values[:60], float(few.max())))
    return {
        "harden": harden_page(told, material(), scan),
        "failed": harden_page(failed_report(), material(inputs=details().inputs)),
        "hostile": harden_page(hostile, strange),
        "bare": harden_page(report(), None),
        "verify": verify_page(seen, details()),
        "far": verify_page(seen, far),
        "missed": verify_page(seen, missed),
        "words": verify_page(seen, details(triggered=None, odd=shown(np.zeros((3, 5))))),
    }


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    assert PROGRAM is not None
    with started(PROGRAM, tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pages and pictures of them go: somewhere to look at them, or a temporary place."""
    given = os.environ.get("MMBM_SCREENSHOTS")
    found = Path(given) if given else tmp_path_factory.mktemp("pages")
    found.mkdir(exist_ok=True)
    for name, data in pages().items():
        (found / f"{name}.html").write_bytes(data)
    return found


@pytest.mark.parametrize("name", FIGURES)
def test_a_page_is_whole_on_every_screen(browser: Browser, folder: Path, name: str) -> None:
    browser.told.clear()
    browser.asked.clear()
    page = folder / f"{name}.html"
    faults: list[tuple[str, Any]] = []
    papers = {}
    for look, size in (("wide", (1280, 900)), ("tablet", (800, 1000)), ("phone", (360, 760))):
        browser.resize(*size, phone=look == "phone")
        browser.open(page)
        for dark in (False, True):
            browser.dark(dark)
            faults += [(f"{look}{' dark' * dark}", fault) for fault in browser.value(FAULTS)]
            assert browser.value(DRAWN) == sorted(FIGURES[name])
            if look == "tablet":
                continue
            picture = folder / f"{name}-{look}{'-dark' * dark}.png"
            browser.screenshot(picture)
            with Image.open(picture) as image:
                assert image.width == size[0] and image.height > size[1]
                papers[dark] = image.convert("L").getpixel((2, 2))
        assert papers[False] > 230 and papers[True] < 40
    assert faults == []
    assert browser.told == []
    loaded = {url for url in browser.asked if not url.startswith("data:image/png;base64,")}
    assert loaded == {page.resolve().as_uri()}


@pytest.mark.parametrize("name", ["harden", "verify"])
def test_a_page_can_be_printed(browser: Browser, folder: Path, name: str) -> None:
    browser.resize(1280, 900)
    browser.dark(True)  # paper is white all the same
    browser.open(folder / f"{name}.html")
    browser.pdf(folder / f"{name}.pdf")
    assert (folder / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    browser.print_media(True)
    try:
        browser.resize(690, 1000)
        browser.open(folder / f"{name}.html")
        assert browser.value(FAULTS) == []
        assert browser.value(DRAWN) == sorted(FIGURES[name])
        assert browser.value("getComputedStyle(document.body).backgroundColor") == (
            "rgb(255, 255, 255)"
        )
    finally:
        browser.print_media(False)


def test_faults_are_really_found(browser: Browser, tmp_path: Path) -> None:
    page = tmp_path / "bad.html"
    text = pages()["harden"].decode()
    style = "<style>h2 { color: #ccc !important } main { min-width: 1500px }</style>"
    broken = text.replace("</head>", f"{style}</head>").replace("data:image/png;base64,", "data:,")
    page.write_text(broken.replace("default-src 'none'; ", ""))
    browser.resize(1280, 900)
    browser.dark(False)
    browser.open(page)
    found = " ".join(browser.value(FAULTS))
    for fault in ("scrolls sideways", "image missing", "contrast 1."):
        assert fault in found
    page.write_text(text.replace("</head>", "<style>svg.figure { display: none }</style></head>"))
    browser.open(page)
    assert browser.value(DRAWN) == ["strip-1"]
    page.write_text(text.replace("<main>", "<main><script>document.title = 'run'</script>"))
    browser.told.clear()
    browser.open(page)
    assert browser.value("document.title") != "run"
    assert any("Content Security Policy" in told for told in browser.told)

"""The JSON report of a scan: versioned, documented, strict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmbm_onnx.graph.read import OnnxModel
from mmbm_onnx.report.inspection import model_dict
from mmbm_onnx.report.json_report import strict
from mmbm_onnx.report.pieces import CleanSet, Execution, Tool
from mmbm_onnx.types import Interface

SCHEMA = "mmbm-onnx/scan-report"
VERSION = 1
NOT_JUDGED = (
    "no verdict: the patterns found do next to nothing to samples that they were not made of, as "
    "where a network hides its gradients; more --steps or samples may help"
)
"""What is told where no class could be held against the others."""


@dataclass(frozen=True, slots=True)
class ScannedPattern:
    """The smallest pattern of one class by one norm.

    Attributes:
        size: In the unit of the norm.
        flipped_share: Share of samples of other classes, not used in making it, that it drives to
            the class.
        score: How far the class stands apart by this norm; None where that cannot be told.
    """

    size: float
    flipped_share: float
    score: float | None


@dataclass(frozen=True, slots=True)
class ScannedClass:
    """What was found of one class.

    Attributes:
        index: The class.
        name: Its name where known.
        score: The largest by a norm that decides; None where there is none.
        margin: Largest margin found from noise, in logits.
        patterns: Norm to pattern; None for a class that had no full look.
    """

    index: int
    name: str | None
    score: float | None
    margin: float
    patterns: Mapping[str, ScannedPattern | None]


@dataclass(frozen=True, slots=True)
class ScanTest:
    """One test and its outcome.

    Attributes:
        name: ``"l2"``, ``"l1"``, ``"waves"`` or ``"margin"``.
        score: The largest of any class; None where it could not be told.
        threshold: From which it is suspicious.
        decides: Whether it counts for the verdict.
    """

    name: str
    score: float | None
    threshold: float
    decides: bool


@dataclass(frozen=True, slots=True)
class ScanFinding:
    """A class that looks like the target of a backdoor.

    Attributes:
        index: The class.
        name: Its name where known.
        test: The test that says so loudest.
        score: Of that test.
        threshold: What the score was held against.
    """

    index: int
    name: str | None
    test: str
    score: float
    threshold: float


def scan_report(
    *,
    tool: Tool,
    model: OnnxModel,
    interface: Interface,
    clean_set: CleanSet | None,
    settings: Mapping[str, Any],
    classes: Sequence[ScannedClass],
    tests: Sequence[ScanTest],
    margin_p_value: float | None,
    findings: Sequence[ScanFinding],
    execution: Execution,
    parity: tuple[float, float],
    seed: int,
    seconds: Mapping[str, float],
    warnings: Sequence[str],
) -> dict[str, Any]:
    """Put the pieces together, as ``report/schema/scan-report-1.json`` describes them.

    Args:
        tool: What wrote it.
        model: The model.
        interface: How it is fed and read.
        clean_set: The samples, or None without any.
        settings: How it was done.
        classes: Every class.
        tests: Every test.
        margin_p_value: Of MM-BD, or None where it cannot be told.
        findings: Classes under suspicion, the most suspicious first.
        execution: Where everything ran.
        parity: Worst relative difference of torch from ONNX Runtime, and what is allowed.
        seed: Of the division of the samples and of the search.
        seconds: Phase to the time it took, in seconds.
        warnings: One line each.

    Raises:
        ValueError: A number is not finite; its place is named.
    """
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "version": VERSION,
        "suspicious": bool(findings),
        "judged": any(test.decides and test.score is not None for test in tests),
        "tool": tool,
        "model": model_dict(model, interface),
        "clean_set": clean_set,
        "findings": [
            {
                "class": one.index,
                "name": one.name,
                "test": one.test,
                "score": one.score,
                "threshold": one.threshold,
                "message": _message(one),
            }
            for one in findings
        ],
        "tests": list(tests),
        "margin_p_value": margin_p_value,
        "classes": [
            {
                "class": one.index,
                "name": one.name,
                "score": one.score,
                "margin": one.margin,
                "patterns": one.patterns,
            }
            for one in classes
        ],
        "settings": dict(settings),
        "execution": execution,
        "parity": {"max_relative_difference": parity[0], "tolerance": parity[1]},
        "seed": seed,
        "seconds": dict(seconds),
        "warnings": list(warnings),
    }
    return {key: strict(value, key) for key, value in report.items()}


_SENSES = {
    "l2": "the Euclidean norm",
    "l1": "the number of places",
    "waves": "the number of waves",
}


def _message(finding: ScanFinding) -> str:
    name = "" if finding.name is None else f" ({finding.name})"
    if finding.test == "margin":
        return (
            f"class {finding.index}{name} reaches a margin far above those of the other classes "
            f"(MM-BD: p = {10**-finding.score:.2g}), as the target of a backdoor does"
        )
    return (
        f"a pattern drives samples to class {finding.index}{name} that is far smaller, by "
        f"{_SENSES[finding.test]}, than those of the other classes, as a trigger is (score "
        f"{finding.score:.2f}, suspicious from {finding.threshold:.2f})"
    )

"""A scan as SARIF 2.1.0 (OASIS), which code scanning services take."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from mmbm_onnx.report.scan_report import NOT_JUDGED

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
RULE = "backdoor-suspected"
_HOME = "https://pypi.org/project/mmbm-onnx/"


def scan_sarif(report: Mapping[str, Any]) -> dict[str, Any]:
    """One run with one result per suspected class; none where nothing was found.

    Args:
        report: Of a scan, as ``scan_report`` makes it.
    """
    model = report["model"]
    where = _uri(model["path"])
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": where}}}
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "mmbm-onnx",
                        "version": report["tool"]["version"],
                        "informationUri": _HOME,
                        "rules": [_rule()],
                    }
                },
                "invocations": [_invocation(report)],
                "artifacts": [{"location": {"uri": where}, "hashes": {"sha-256": model["sha256"]}}],
                "results": [
                    {
                        "ruleId": RULE,
                        "ruleIndex": 0,
                        "level": "warning",
                        "message": {"text": finding["message"]},
                        "locations": [location],
                        "partialFingerprints": {
                            "modelAndClass/v1": f"{model['sha256']}:{finding['class']}"
                        },
                        "properties": {
                            "class": finding["class"],
                            "test": finding["test"],
                            "score": finding["score"],
                            "threshold": finding["threshold"],
                        },
                    }
                    for finding in report["findings"]
                ],
            }
        ],
    }


def _invocation(report: Mapping[str, Any]) -> dict[str, Any]:
    """Whether there is a verdict, and what was warned of."""
    told = [{"level": "warning", "message": {"text": line}} for line in report["warnings"]]
    if not report["judged"]:
        told.append({"level": "error", "message": {"text": NOT_JUDGED}})
    return {"executionSuccessful": report["judged"], "toolExecutionNotifications": told}


def _rule() -> dict[str, Any]:
    return {
        "id": RULE,
        "name": "BackdoorSuspected",
        "shortDescription": {"text": "A classifier looks backdoored."},
        "fullDescription": {
            "text": "One class is reached with far less than the others, or by a far larger "
            "margin, as the target of a backdoor is. This is evidence, not proof; that nothing "
            "is found does not show that there is no backdoor."
        },
        "help": {
            "text": "The model is best not deployed: get one from a source that you trust. Where "
            "it must be, deploy the detector that `mmbm-onnx harden` writes, and treat flagged "
            "answers as suspect."
        },
        "defaultConfiguration": {"level": "warning"},
        "properties": {"tags": ["security"]},
    }


def _uri(path: str | None) -> str:
    """A path as a URI reference: relative ones stay relative, absolute ones get ``file:``."""
    if path is None:
        return "model.onnx"
    found = Path(path)
    return found.as_uri() if found.is_absolute() else quote(found.as_posix())

"""What a scan gives, in memory, and how it gets to disk."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mmbm_onnx.errors import OutputError
from mmbm_onnx.graph.write import Content, write_files
from mmbm_onnx.report.html.material import RecoveredTrigger, ScanOutcome
from mmbm_onnx.report.json_report import to_json
from mmbm_onnx.report.sarif import scan_sarif
from mmbm_onnx.scanning.look import Recovered
from mmbm_onnx.types import IntArray, Interface, Samples

_SHOWN = 6  # samples beside a recovered trigger


@dataclass(frozen=True, slots=True)
class ScanResult:
    """What ``scan`` found.

    Attributes:
        report: The JSON report; its schema is ``docs/report-schema.md``.
        recovered: The smallest pattern of every class that was looked at, by every norm; none
            without clean samples. To be added to samples (of a model that takes integers, to what
            they are embedded as).
        held: The clean samples that patterns were tried on; None without clean samples.
        decisions: The model's of them, int64 ``(n,)``; likewise.
        limits: Smallest and largest value of valid inputs (of a model that takes integers, of
            what they are embedded as).
        interface: How the model is fed and read.
    """

    report: dict[str, Any]
    recovered: tuple[Recovered, ...]
    held: Samples | None
    decisions: IntArray | None
    limits: tuple[float, float]
    interface: Interface

    @property
    def suspicious(self) -> bool:
        """Whether the model looks backdoored."""
        return bool(self.report["suspicious"])

    @property
    def judged(self) -> bool:
        """Whether classes could be held against each other; without, nothing is found either."""
        return bool(self.report["judged"])

    @property
    def suspected_classes(self) -> tuple[int, ...]:
        """The classes that a backdoor seems to lead to, the most suspicious first."""
        return tuple(finding["class"] for finding in self.report["findings"])

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line each."""
        return tuple(self.report["warnings"])

    def outcome(self) -> ScanOutcome:
        """What a page tells of it."""
        return ScanOutcome(self.judged, self.suspected_classes, self.triggers())

    def triggers(self, most: int = 3) -> tuple[RecoveredTrigger, ...]:
        """What the suspected classes' patterns look like, and what they do to samples.

        Args:
            most: How many at most.

        Returns:
            The most suspicious first; of a model that is not suspicious, that of its most exposed
            class, said to be no suspect. None where patterns are no samples (without clean samples,
            or for a model that takes integers).
        """
        if self.held is None or self.interface.start is not None or not self.recovered:
            return ()
        findings = self.report["findings"]
        chosen = [(finding["class"], finding["test"], True) for finding in findings[:most]]
        if not chosen:
            exposed = max(self.report["classes"], key=lambda entry: entry["score"] or -1.0)
            known = {n: one["score"] or 0.0 for n, one in exposed["patterns"].items() if one}
            if not known:
                return ()
            chosen = [(exposed["class"], max(known, key=lambda norm: known[norm]), False)]
        found = {(one.target, one.norm): one for one in self.recovered}
        return tuple(
            self._trigger(found[target, norm], suspected) for target, norm, suspected in chosen
        )

    def _trigger(self, one: Recovered, suspected: bool) -> RecoveredTrigger:
        assert self.held is not None and self.decisions is not None
        shown = one.flipped[:_SHOWN]
        before = self.held.x[shown].astype(np.float32)
        low, high = self.limits
        return RecoveredTrigger(
            class_index=one.target,
            pattern=one.pattern,
            before=before,
            after=np.clip(before + one.pattern, low, high),
            flipped_share=one.flipped_share,
            size=float(np.sqrt(np.mean(np.square(one.pattern, dtype=np.float64)))) / (high - low),
            decided_before=self.decisions[shown],
            decided_after=np.full(len(shown), one.target),
            suspected=suspected,
        )

    def to_sarif(self) -> dict[str, Any]:
        """The findings as SARIF 2.1.0."""
        return scan_sarif(self.report)

    def document(self, form: Literal["json", "sarif"]) -> bytes:
        """The report in one form or the other, as a file holds it."""
        if form == "json":
            return to_json(self.report)
        return (json.dumps(self.to_sarif(), indent=2, ensure_ascii=False) + "\n").encode()

    def save(
        self,
        *,
        report: str | Path | None = None,
        sarif: str | Path | None = None,
        patterns: str | Path | None = None,
        force: bool = False,
    ) -> None:
        """Write files: all of them, or none.

        Args:
            report: Where the JSON report goes, or None to leave it out.
            sarif: Where the findings go as SARIF.
            patterns: Where the recovered patterns go, as an ``.npz``: ``pattern`` float32
                ``(p, *shape)``, ``target`` int64 ``(p,)``, ``norm`` text ``(p,)``, ``size`` and
                ``flipped_share`` float64 ``(p,)``.
            force: Whether existing files may be overwritten.

        Raises:
            OutputError: A file exists, would be written twice, or cannot be written; or there are
                no patterns to write.
        """
        entries: list[tuple[Path, Content]] = []
        if report is not None:
            entries.append((Path(report), self.document("json")))
        if sarif is not None:
            entries.append((Path(sarif), self.document("sarif")))
        if patterns is not None:
            entries.append((Path(patterns), self._patterns(patterns)))
        files = dict(entries)
        if len(files) < len(entries):
            raise OutputError(f"{entries[0][0]}: two outputs would be written to the same file")
        if files:
            write_files(files, force=force)

    def _patterns(self, path: str | Path) -> bytes:
        if not self.recovered:
            raise OutputError(f"{path}: no patterns to write: they are made with clean samples")
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            pattern=np.stack([one.pattern for one in self.recovered]),
            target=np.array([one.target for one in self.recovered], np.int64),
            norm=np.array([one.norm for one in self.recovered]),
            size=np.array([one.size for one in self.recovered]),
            flipped_share=np.array([one.flipped_share for one in self.recovered]),
        )
        return buffer.getvalue()

"""What a hardening gives, in memory, and how it gets to disk."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from mmbm_onnx.data.state_file import is_checkpoint
from mmbm_onnx.errors import OptionError, OutputError
from mmbm_onnx.evaluation.gates import Gate
from mmbm_onnx.graph.files import contents, digest
from mmbm_onnx.graph.write import Content, write_files
from mmbm_onnx.pipeline.scan_result import ScanResult
from mmbm_onnx.report.html.harden import harden_page
from mmbm_onnx.report.html.material import Material, ScanOutcome
from mmbm_onnx.report.json_report import to_json, with_files
from mmbm_onnx.types import Bounds


@dataclass(frozen=True, slots=True)
class HardenResult:
    """What ``harden`` made, in memory.

    Attributes:
        hardened: The hardened graph. Large weights of a model above 1 GiB stay in the original's
            files (see ``graph.mapped``) until ``save`` writes them with the graph.
        detector: The detector graph, or None; likewise.
        bounds: The learned bounds, site by site.
        report: The JSON report; its schema is ``docs/report-schema.md``.
        gates: What had to hold.
        warnings: One line each.
        checkpoint: Where the state of learning was kept, removed by ``save``; or None.
        material: What a page draws besides the report's figures.
        scan: What a scan of the original found, for the page; None for no scan.
    """

    hardened: onnx.ModelProto
    detector: onnx.ModelProto | None
    bounds: Bounds
    report: dict[str, Any]
    gates: tuple[Gate, ...]
    warnings: tuple[str, ...]
    checkpoint: Path | None = None
    material: Material | None = None
    scan: ScanOutcome | None = None

    @property
    def passed(self) -> bool:
        """Whether all gates hold."""
        return all(gate.passed for gate in self.gates)

    def with_scan(self, scan: ScanResult) -> HardenResult:
        """The same, with what a scan of the original found, for the page.

        Raises:
            OptionError: The scan is of another model.
        """
        if scan.report["model"]["sha256"] != self.report["model"]["sha256"]:
            raise OptionError("the scan is of another model than the hardening")
        return replace(self, scan=scan.outcome())

    def save(
        self,
        output: str | Path,
        *,
        detector_output: str | Path | None = None,
        report: str | Path | None = None,
        html: str | Path | None = None,
        force: bool = False,
    ) -> dict[str, Any]:
        """Write the graphs, the report and the page: all of them, or none.

        Weights that stayed in their files go into ``<graph>.data``, one file beside each graph.

        Args:
            output: Where the hardened graph goes.
            detector_output: Where the detector graph goes, or None to leave it out.
            report: Where the JSON report goes, or None to leave it out.
            html: Where the report as a page goes, or None to leave it out.
            force: Whether existing files may be overwritten.

        Returns:
            The report, with paths and SHA-256 of the graphs.

        Raises:
            OutputError: A file exists, would be written twice, or cannot be written.
        """
        graphs = {"hardened": (Path(output), self.hardened)}
        if detector_output is not None:
            if self.detector is None:
                raise OutputError(f"{detector_output}: there is no detector to write")
            graphs["detector"] = (Path(detector_output), self.detector)
        parts = {role: contents(proto, path) for role, (path, proto) in graphs.items()}
        digests = {role: (list(files), digest(files)) for role, files in parts.items()}
        full = with_files(self.report, digests)
        entries: list[tuple[Path, Content]] = [
            entry for files in parts.values() for entry in files.items()
        ]
        if report is not None:
            entries.append((Path(report), to_json(full)))
        if html is not None:
            entries.append((Path(html), harden_page(full, self.material, self.scan)))
        files = dict(entries)
        if len(files) < len(entries):
            raise OutputError(f"{output}: two outputs would be written to the same file")
        write_files(files, force=force)
        if self.checkpoint is not None and is_checkpoint(self.checkpoint):
            with contextlib.suppress(OSError):
                self.checkpoint.unlink()
        return full

"""``harden``: from a model and a clean set to a hardened graph, a detector and a report."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from mmbm_onnx.api.sources import ModelSource, SampleSource
from mmbm_onnx.data import Preprocessing
from mmbm_onnx.errors import OptionError, OutputError
from mmbm_onnx.evaluation.gates import Gate
from mmbm_onnx.graph.write import write_files
from mmbm_onnx.report.json_report import to_json, with_files
from mmbm_onnx.types import Bounds, Granularity, Progress

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class HardenResult:
    """What ``harden`` made, in memory.

    Attributes:
        hardened: The hardened graph.
        detector: The detector graph, or None.
        bounds: The learned bounds, site by site.
        report: The JSON report; its schema is ``docs/report-schema.md``.
        gates: What had to hold.
        warnings: One line each.
    """

    hardened: onnx.ModelProto
    detector: onnx.ModelProto | None
    bounds: Bounds
    report: dict[str, Any]
    gates: tuple[Gate, ...]
    warnings: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether all gates hold."""
        return all(gate.passed for gate in self.gates)

    def save(
        self,
        output: str | Path,
        *,
        detector_output: str | Path | None = None,
        report: str | Path | None = None,
        force: bool = False,
    ) -> dict[str, Any]:
        """Write the graphs and the report: all of them, or none.

        Args:
            output: Where the hardened graph goes.
            detector_output: Where the detector graph goes, or None to leave it out.
            report: Where the JSON report goes, or None to leave it out.
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
        contents = {
            role: (path, proto.SerializeToString(deterministic=True))
            for role, (path, proto) in graphs.items()
        }
        digests = {
            role: (path, hashlib.sha256(content).hexdigest())
            for role, (path, content) in contents.items()
        }
        full = with_files(self.report, digests)
        entries = list(contents.values())
        if report is not None:
            entries.append((Path(report), to_json(full)))
        files = dict(entries)
        if len(files) < len(entries):
            raise OutputError(f"{output}: two outputs would be written to the same file")
        write_files(files, force=force)
        return full


def harden(
    model: ModelSource | torch.nn.Module,
    clean: SampleSource,
    *,
    method: str = "mmac",
    granularity: Granularity = "channel",
    detector: bool = True,
    false_positive_rate: float = 0.01,
    max_accuracy_drop: float = 0.02,
    preprocessing: Preprocessing | None = None,
    input_name: str | None = None,
    logits_name: str | None = None,
    device: str = "auto",
    provider: str | None = None,
    threads: int | None = None,
    seed: int = 0,
    epochs: int | None = None,
    batch_size: int | None = None,
    calibration_fraction: float = 0.5,
    min_accuracy: float | None = None,
    example_input: torch.Tensor | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> HardenResult:
    """Learn bounds from clean samples and write them into the graph.

    Nothing the caller hands in is changed, and nothing is written to disk: see
    ``HardenResult.save``.

    Args:
        model: A path to an ONNX file, an ``onnx.ModelProto``, or a ``torch.nn.Module``, which is
            exported first and needs ``example_input``.
        clean: Trusted samples: an image folder with one folder per class, an ``.npz``,
            ``Samples``, or a pair ``(x, y)`` of arrays ready for the model; ``y`` may be None.
        method: ``"mmac"``, ``"mmbm"`` or ``"mmac-reference"``.
        granularity: One bound per ``"channel"`` or per ``"tensor"``.
        detector: Whether to make the detector graph.
        false_positive_rate: Share of clean samples that the detector may flag, in (0, 1).
        max_accuracy_drop: Gate, a fraction: accuracy on the calibration part may fall by no more.
        preprocessing: How image files become tensors.
        input_name, logits_name: When they cannot be found.
        device: Where to learn: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:1"``.
        provider: Execution provider of ONNX Runtime; None is the CPU.
        threads: Threads of torch and ONNX Runtime; None leaves them as they are.
        seed: Of the split and of learning.
        epochs, batch_size: Override those of the method.
        calibration_fraction: Share of the samples kept from learning, for null and gates.
        min_accuracy: Stop if the original's accuracy on ``clean`` is below this fraction.
        example_input: A batch of inputs, for exporting a torch module.
        progress: Called with what is being done.

    Raises:
        ModelError: The model cannot be read, run or exported, or is hardened already.
        DataError: The clean set cannot be used.
        OptionError: An option is out of range or does not fit.
        ParityError: torch and ONNX Runtime disagree on the model.
        NothingToHardenError: No activation takes a bound.
        RewriteError: A written graph failed its checks.
        RuntimeMissingError: ONNX Runtime, its provider, or the device is missing.
    """
    _check_fraction("false_positive_rate", false_positive_rate)
    _check_fraction("calibration_fraction", calibration_fraction)
    if not 0 <= max_accuracy_drop <= 1:
        raise OptionError(f"max_accuracy_drop is {max_accuracy_drop}, expected 0 to 1")
    if granularity not in ("channel", "tensor"):
        raise OptionError(f"granularity is {granularity!r}, expected 'channel' or 'tensor'")

    # Imported here, so that verify and inspect never load torch.
    from mmbm_onnx.api.pipeline import Pipeline
    from mmbm_onnx.learning.settings import settings_for

    return Pipeline(
        settings=settings_for(method, epochs=epochs, batch_size=batch_size),
        granularity=granularity,
        wants_detector=detector,
        false_positive_rate=false_positive_rate,
        max_accuracy_drop=max_accuracy_drop,
        preprocessing=preprocessing,
        input_name=input_name,
        logits_name=logits_name,
        device=device,
        provider=provider,
        threads=threads,
        seed=seed,
        calibration_fraction=calibration_fraction,
        min_accuracy=min_accuracy,
        progress=progress,
    ).run(model, clean, example_input)


def _check_fraction(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise OptionError(f"{name} is {value}, expected a fraction between 0 and 1")

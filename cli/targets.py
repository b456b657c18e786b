"""Outputs that cannot be written, or would overwrite an input, are refused before any work."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def check_outputs(
    targets: Sequence[Path], *, models: Sequence[Path], others: Sequence[Path], force: bool
) -> None:
    """Make sure that files can be written.

    Args:
        targets: Where they go.
        models: Models that are read: files, or directories that hold one.
        others: What else is read: samples, settings.
        force: Whether files that exist may be overwritten; parts of an input never.

    Raises:
        OutputError: One cannot; see ``graph.write.check_targets``.
    """
    from mmbm_onnx.graph.write import check_targets

    inputs = [*models, *others]
    for model in models:
        if model.is_dir():
            inputs += list(model.iterdir())
    check_targets(targets, inputs=inputs, force=force)
    existing = [target for target in targets if target.exists()]
    if not existing:
        return

    # With --force, what is to be overwritten must not be a part of a model or of a set.
    from mmbm_onnx.data.samples import is_sample_file
    from mmbm_onnx.graph.read import model_files

    homes = [other.resolve() for other in others]
    parts = [
        path
        for path in existing
        if is_sample_file(path) and any(path.resolve().is_relative_to(home) for home in homes)
    ]
    parts += [file for model in models for file in model_files(model)]
    check_targets(existing, inputs=parts, force=force)

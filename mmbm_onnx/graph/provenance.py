"""Where a written graph came from, kept in its ``metadata_props`` under one prefix."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

PREFIX = "mmbm_onnx."


def read_provenance(proto: onnx.ModelProto) -> dict[str, str]:
    """Our entries of the model's metadata, keys without the prefix; empty for other models."""
    return {
        entry.key[len(PREFIX) :]: entry.value
        for entry in proto.metadata_props
        if entry.key.startswith(PREFIX)
    }


def stamp(proto: onnx.ModelProto, entries: Mapping[str, str]) -> None:
    """Write ``entries`` into the metadata of ``proto`` in place, in the order given.

    Entries of others stay as they are, before ours.

    Raises:
        ValueError: A key is there already; nothing is written then.
    """
    present = {entry.key for entry in proto.metadata_props}
    for key in entries:
        if PREFIX + key in present:
            raise ValueError(f"metadata has {PREFIX + key!r} already")
    for key, value in entries.items():
        proto.metadata_props.add(key=PREFIX + key, value=value)

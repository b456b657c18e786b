"""The JSON Schemas of what the tool writes, installed beside the code."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any, Literal

SchemaName = Literal[
    "harden-report-1", "verify-report-1", "scan-report-1", "inspection-1", "bench-report-1"
]


def load_schema(name: SchemaName) -> dict[str, Any]:
    """A schema (JSON Schema, draft 2020-12), for any validator."""
    file = resources.files(__name__) / f"{name}.json"
    schema: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return schema

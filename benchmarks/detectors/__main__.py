"""Measure what the detector loses in its cheaper forms.

    python -m benchmarks.detectors

Two stages against one, and a bounded branch in int8 against float, on the victims of
``benchmarks.defence``. Results are added to ``benchmarks/results/detectors.jsonl``, a line per
victim; what is there is not measured again. ``detectors.md`` is made from them anew each time.
"""

from __future__ import annotations

import sys

from benchmarks.per_victim import measured, parser


def main() -> int:
    """Measure what is missing, then render."""
    options = parser(__doc__, "detectors").parse_args()
    from benchmarks.defence import sizes
    from benchmarks.detectors import forms, tables

    records, failed = measured(options, sizes.every_victim(), forms.measure, "victim")
    options.results.with_suffix(".md").write_text(tables.render(records))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

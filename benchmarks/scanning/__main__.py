"""Scan networks with a backdoor and without.

    python -m benchmarks.scanning

Those with one are the victims of ``benchmarks.defence``, those without are trained the same way on
clean data. Results are added to ``benchmarks/results/scanning.jsonl``, a line per network; what is
there is not measured again. ``scanning.md`` is made from them anew each time, and with
``--publish`` the tables in ``docs/scanning.md``.
"""

from __future__ import annotations

import sys

from benchmarks.per_victim import ROOT, measured, parser

PAGE = ROOT / "docs/scanning.md"
BEGIN, END = "<!-- scanning: begin -->", "<!-- scanning: end -->"


def main() -> int:
    """Scan what is missing, then render."""
    asked = parser(__doc__, "scanning")
    asked.add_argument("--publish", action="store_true", help="write docs/scanning.md's tables")
    options = asked.parse_args()
    from benchmarks.scanning import networks, tables

    records, failed = measured(options, networks.all_of_them(), networks.scan, "network")
    options.results.with_suffix(".md").write_text(tables.render(records))
    if options.publish:
        before, rest = PAGE.read_text("utf-8").split(BEGIN)
        after = rest.split(END)[1]
        text = f"{before}{BEGIN}\n\n{tables.for_readers(records)}\n\n{END}{after}"
        PAGE.write_text(text, encoding="utf-8")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

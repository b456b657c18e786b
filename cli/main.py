"""The command ``mmbm-onnx``."""

from __future__ import annotations

import click

from .bench import bench
from .completion import completion
from .errors import EXIT_STATUS, Group
from .harden import harden
from .inspect import inspect
from .output import NAME
from .scan import scan
from .verify import verify
from .versions import version_option


@click.group(
    NAME,
    cls=Group,
    no_args_is_help=False,
    epilog=EXIT_STATUS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@version_option
def main() -> None:
    """Harden backdoored ONNX classifiers with learned activation bounds.

    Results go to stdout, progress and warnings to stderr.
    """


main.add_command(harden)
main.add_command(verify)
main.add_command(scan)
main.add_command(inspect)
main.add_command(bench)
main.add_command(completion)

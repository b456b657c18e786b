"""Options that commands share, and the types of their values."""

from __future__ import annotations

import dataclasses
import logging
import math
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mmbm_onnx.errors import did_you_mean

from .completion import suffixes
from .config import config_option
from .errors import Settings
from .output import Level, logs_json, say, set_log_format, warn

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from mmbm_onnx.data import Preprocessing

    Type = click.ParamType[Any]
else:
    Type = click.ParamType

Command = TypeVar("Command", bound=Callable[..., Any])
Decorator = Callable[[Command], Command]


class Place(click.Path):
    """A path; shells complete it to directories and to files that end in one of the suffixes.

    Args:
        suffixes: Such as ``".onnx"``; none of them is every file.
        options: Those of ``click.Path``.
    """

    def __init__(self, *endings: str, **options: Any) -> None:
        super().__init__(path_type=Path, **options)
        self.endings = endings

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Check it; where it does not exist, say which file beside it may be meant."""
        if value == "":
            self.fail("is empty, expected a path", param, ctx)
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            hint = "" if os.path.lexists(value) else _beside(Path(value))
            if not hint:
                raise
            self.fail(f"{error.message.rstrip('.')}{hint}", param, ctx)

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """What tells the shell to complete it itself."""
        return suffixes(self.endings, incomplete)


MODEL = Place(".onnx", exists=True)
SAMPLES = Place(".npz", exists=True)
SETTINGS = Place(".json", exists=True)
OUTPUT = Place(readable=False)  # what is replaced need not be read
# Options that are named as the fields of ``Preprocessing`` they set.
_PREPROCESSING_FIELDS = (
    "scale",
    "mean",
    "std",
    "resize",
    "crop",
    "resample",
    "channel_order",
    "layout",
)
PREPROCESSING = ("preprocess", *_PREPROCESSING_FIELDS)
"""Options that say how images become tensors, by their names in Python."""


class Fraction(Type):
    """A number from 0 to 1."""

    name = "fraction"
    toml = (int, float)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse it."""
        number = _number(value)
        if number is None or not 0 <= number <= 1:
            self.fail(f"{value!r} is not a fraction from 0 to 1", param, ctx)
        return number


class Quotient(Type):
    """A number, also as a quotient such as 1/255."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse it."""
        above, _, below = str(value).partition("/")
        number, divisor = _number(above), _number(below) if "/" in str(value) else 1.0
        if number is None or not divisor:
            self.fail(f"{value!r} is not a number such as 0.5 or 1/255", param, ctx)
        return number / divisor


class Numbers(Type):
    """Numbers separated by commas."""

    name = "numbers"
    between = ","

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse them."""
        if isinstance(value, tuple):
            return value
        numbers = [_number(part) for part in str(value).split(",")]
        if any(number is None for number in numbers):
            self.fail(f"{value!r} is not a list such as 0.485,0.456,0.406", param, ctx)
        return tuple(numbers)


class Counts(Type):
    """Whole numbers from 1 on, separated by commas."""

    name = "counts"
    between = ","

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse them."""
        if isinstance(value, tuple):
            return value
        parts = str(value).split(",")
        if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is not a list of whole numbers such as 1,8", param, ctx)
        return tuple(int(part) for part in parts)


class Size(Type):
    """Pixels: HEIGHTxWIDTH, or one number."""

    name = "size"
    toml = (int, str)
    between = "x"

    def __init__(self, *, square: bool) -> None:
        self.square = square

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Parse it; one number is a square, or stays a number where it means the shortest side."""
        if not isinstance(value, str):
            return value
        parts = value.lower().split("x")
        if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
            self.fail(f"{value!r} is not a size such as 224 or 224x224", param, ctx)
        sides = [int(part) for part in parts]
        if len(sides) == 2:
            return (sides[0], sides[1])
        return (sides[0], sides[0]) if self.square else sides[0]


def clean_option(*, required: bool) -> Decorator[Any]:
    """Where the clean set is."""
    return click.option(
        "--clean-dir",
        "clean",
        type=SAMPLES,
        required=required,
        metavar="PATH",
        help="Clean samples: a directory with one folder of images per class, or of images alone, "
        "without labels, or an .npz with x and, better, y.",
    )


def preprocessing_options(command: Command) -> Command:
    """How image files become tensors."""
    options: list[Decorator[Any]] = [
        click.option(
            "--preprocess",
            "preprocess",
            type=SETTINGS,
            metavar="FILE",
            help="JSON that says how images become tensors: preprocessor_config.json of Hugging "
            "Face, or the names of the options below.  [default: pixels / 255, for a model of "
            "integers pixels as they are]",
        ),
        click.option(
            "--scale",
            type=Quotient(),
            help="Factor on pixels, such as 1/255.",
        ),
        click.option("--mean", type=Numbers(), help="Subtracted after scaling, per channel."),
        click.option("--std", type=Numbers(), help="Divided by after that, per channel."),
        click.option(
            "--resize",
            type=Size(square=False),
            help="Shortest side, or HEIGHTxWIDTH.  [default: the model's size]",
        ),
        click.option("--crop", type=Size(square=True), help="Centre crop after resizing."),
        click.option(
            "--resample",
            type=click.Choice(["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]),
            help="Filter for resizing.  [default: bilinear]",
        ),
        click.option(
            "--channel-order",
            type=click.Choice(["rgb", "bgr"]),
            help="Order of colours.  [default: rgb]",
        ),
        click.option(
            "--layout",
            type=click.Choice(["auto", "nchw", "nhwc"]),
            help="Order of the model input's axes.  [default: auto]",
        ),
    ]
    return _all(options, command)


def model_options(command: Command) -> Command:
    """Which tensors of the model are meant, where they cannot be found."""
    options: list[Decorator[Any]] = [
        click.option("--input", "input_name", metavar="NAME", help="Input that takes samples."),
        click.option("--logits", "logits_name", metavar="NAME", help="Tensor with the logits."),
    ]
    return _all(options, command)


def provider_option(command: Command) -> Command:
    """What ONNX Runtime runs on."""
    return click.option(
        "--provider",
        metavar="NAME",
        help="Execution provider of ONNX Runtime: cpu, cuda, ...  [default: cpu]",
    )(command)


def runtime_options(command: Command) -> Command:
    """Where ONNX Runtime runs."""
    options: list[Decorator[Any]] = [
        provider_option,
        click.option(
            "--threads",
            type=click.IntRange(min=1),
            metavar="INT",
            help="CPU threads.  [default: as many as the libraries choose]",
        ),
    ]
    return _all(options, command)


def device_option(does: str) -> Decorator[Any]:
    """What torch runs on.

    Args:
        does: What torch does there.
    """
    return click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help=f"Where torch {does}.",
    )


def force_option(what: str) -> Decorator[Any]:
    """Whether files are replaced.

    Args:
        what: Which, with its verb.
    """
    return click.option("--force", is_flag=True, help=f"Overwrite {what}.")


def seed_option(what: str) -> Decorator[Any]:
    """Where randomness starts.

    Args:
        what: It is the seed of.
    """
    return click.option(
        "--seed",
        type=click.IntRange(0, 2**63 - 1),
        default=0,
        show_default=True,
        metavar="INT",
        help=f"Of {what}, below 2^63.",
    )


def format_option(command: Command) -> Command:
    """Text for people or JSON for programs."""
    return click.option(
        "--format",
        "style",
        type=click.Choice(["text", "json"]),
        default="text",
        show_default=True,
        help="What is printed.",
    )(command)


def logging_options(command: Command) -> Command:
    """How much is told on stderr, and a file that options may be in: for every command."""
    options: list[Decorator[Any]] = [
        config_option(Place(".toml", exists=True, dir_okay=False)),
        click.option(
            "-q",
            "--quiet",
            is_flag=True,
            is_eager=True,
            callback=_set_quiet,
            help="No progress, no table, no warnings.",
        ),
        click.option(
            "-v",
            "--verbose",
            count=True,
            expose_value=False,
            callback=_set_verbosity,
            help="Log more on stderr; twice for debugging.",
        ),
        click.option(
            "--log-format",
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            is_eager=True,
            expose_value=False,
            callback=_set_log_format,
            help="Lines on stderr: for people, or a JSON object in each.",
        ),
        click.option(
            "--debug",
            is_flag=True,
            expose_value=False,
            callback=_set_debug,
            help="Show tracebacks of errors.",
        ),
        click.help_option("-h", "--help"),
    ]
    return _all(options, command)


def take_preprocessing(options: dict[str, Any]) -> Preprocessing | None:
    """The preprocessing that the options ask for: the file's, with options in place of its fields.

    Args:
        options: A command's; those of ``preprocessing_options`` are taken out.

    Returns:
        None when nothing was asked for.
    """
    from mmbm_onnx.data import Preprocessing

    preprocess = options.pop("preprocess")
    taken = {name: options.pop(name) for name in _PREPROCESSING_FIELDS}
    given = {name: value for name, value in taken.items() if value is not None}
    if preprocess is None and not given:
        return None
    base = Preprocessing() if preprocess is None else Preprocessing.from_file(preprocess)
    return dataclasses.replace(base, **given)


def _set_log_format(ctx: click.Context, param: click.Parameter, value: str) -> None:
    if not ctx.resilient_parsing:
        set_log_format(value)


def _set_verbosity(ctx: click.Context, param: click.Parameter, value: int) -> None:
    levels = (logging.ERROR, logging.INFO, logging.DEBUG)
    logging.basicConfig(level=levels[min(value, 2)], handlers=[_Stderr()], force=True)
    warnings.showwarning = _warning_of(ctx.ensure_object(Settings))
    if value >= 2:
        _set_debug(ctx, param, True)


class _Stderr(logging.Handler):
    """Hands records of ``logging`` to our own stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Tell it."""
        text = record.getMessage()
        if logs_json():
            say(text, _level(record.levelno), logger=record.name)
        else:
            say(f"{record.levelname}: {record.name}: {text}")


def _level(number: int) -> Level:
    if number >= logging.ERROR:
        return "error"
    if number >= logging.WARNING:
        return "warning"
    return "info" if number >= logging.INFO else "debug"


def _warning_of(settings: Settings) -> Callable[..., None]:
    """Shows our own warnings in one line; those of libraries are for those who ask for more."""

    def show(message: Warning | str, category: type, filename: str, *rest: object) -> None:
        if f"{os.sep}mmbm_onnx{os.sep}" not in filename:
            logging.getLogger(filename).info("%s: %s", category.__name__, message)
        elif not settings.quiet:
            warn(str(message))

    return show


def _set_quiet(ctx: click.Context, param: click.Parameter, value: bool) -> bool:
    ctx.ensure_object(Settings).quiet = value
    return value


def _set_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        ctx.ensure_object(Settings).debug = True


def _all(options: list[Decorator[Any]], command: Command) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def _number(text: Any) -> float | None:
    try:
        number = float(text)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _beside(path: Path) -> str:
    """Which file or folder in the same place has a name close to that of a path."""
    try:
        names = [entry.name for entry in path.parent.iterdir() if not entry.name.startswith(".")]
    except OSError:
        return ""
    return did_you_mean(path.name, names)

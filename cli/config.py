"""Options from a file: ``--config mmbm.toml`` mirrors the command line, which wins over it.

What keys there are, and what they take, is read from the commands' own options.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from mmbm_onnx.errors import did_you_mean

from .output import propose_log_format

_META = "mmbm_onnx.config"
_SHARED = "mmbm_onnx.config.shared"
_MAX_BYTES = 1 << 20
_NO_KEYS = frozenset({"config", "help", "version"})


class ConfigError(click.ClickException):
    """The file cannot be read, or holds what is no option."""


@dataclass(frozen=True)
class _File:
    """A file of options.

    Attributes:
        path: Where it is.
        lines: Table (``""`` above the first) and key to the number of the line they stand in.
        content: What it holds.
    """

    path: Path
    lines: Mapping[tuple[str, str], int]
    content: Mapping[str, Any]

    def at(self, table: str, key: str = "") -> str:
        """Where something stands, for messages."""
        line = self.lines.get((table, key))
        return f"{self.path}, line {line}" if line is not None else str(self.path)


def config_option(path: click.Path) -> Callable[[Any], Any]:
    """The option ``--config`` of a command.

    Args:
        path: The type of its value.
    """
    return click.option(
        "--config",
        type=path,
        is_eager=True,
        expose_value=False,
        callback=_take,
        metavar="FILE",
        help="TOML file of options, a table for each command. What is given here wins over it.",
    )


def origin(ctx: click.Context | None, param: click.Parameter | None) -> str:
    """Where in a file the value of a parameter stands; empty where it is from elsewhere."""
    if ctx is None or param is None or not param.name:
        return ""
    if ctx.get_parameter_source(param.name) is not ParameterSource.DEFAULT_MAP:
        return ""
    return str(ctx.meta.get(_META, {}).get(param.name, ""))


def is_shared(ctx: click.Context, name: str) -> bool:
    """Whether the value of a parameter stands above the tables of a file, for every command."""
    source = ctx.get_parameter_source(name)
    return source is ParameterSource.DEFAULT_MAP and name in ctx.meta.get(_SHARED, ())


def _take(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    """Make what a file says the defaults of the command."""
    if value is None or ctx.resilient_parsing:
        return
    group = ctx.parent.command if ctx.parent is not None else None
    commands = dict(group.commands) if isinstance(group, click.Group) else {}
    commands.setdefault(ctx.info_name or "", ctx.command)
    keys = {name: _keys(command) for name, command in commands.items()}
    file = _read(value)
    _log_as_it_says(file, ctx.info_name or "")
    _check_names(file, {name: known for name, known in keys.items() if known})
    own = keys[ctx.info_name or ""]
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    shared: set[str] = set()
    for table, key, given in _entries(file):
        if table not in ("", ctx.info_name) or _plain(key) not in own:
            continue
        option = own[_plain(key)]
        where = f"{file.at(table, key)}: {key}"
        assert option.name is not None
        values[option.name] = _typed(option, given, file.path.parent, where)
        places[option.name] = where
        shared = shared - {option.name} if table else shared | {option.name}
    ctx.default_map = values
    ctx.meta[_META] = places
    ctx.meta[_SHARED] = shared


def _log_as_it_says(file: _File, command: str) -> None:
    """Tell of what is wrong in a file the way that it asks for itself."""
    own = file.content.get(command)
    for table in (own if isinstance(own, dict) else {}, file.content):
        for key, value in table.items():
            if _plain(key) == "log-format" and value in ("text", "json"):
                propose_log_format(value)
                return


def _keys(command: click.Command) -> dict[str, click.Parameter]:
    """The parameters of a command that a file can set, by key; none where it takes no file."""
    found: dict[str, click.Parameter] = {}
    for param in command.params:
        long = [option[2:] for option in param.opts if option.startswith("--")]
        names = long if isinstance(param, click.Option) else [param.name or ""]
        found |= {_plain(name): param for name in names}
    if "config" not in found:
        return {}
    return {name: param for name, param in found.items() if name not in _NO_KEYS}


def _plain(key: str) -> str:
    return key.replace("_", "-")


def _read(path: Path) -> _File:
    import tomllib

    try:
        with path.open("rb") as stream:
            raw = stream.read(_MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    if len(raw) > _MAX_BYTES:
        raise ConfigError(f"{path}: larger than {_MAX_BYTES} bytes, not a file of options")
    try:
        text = raw.decode("utf-8-sig")  # Windows' editors put a mark in front
        content = tomllib.loads(text)
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: is not valid TOML: {error}") from None
    return _File(path, _lines(text), content)


def _lines(text: str) -> dict[tuple[str, str], int]:
    """Where tables and keys stand, as far as lines alone tell: what seems to stand in two places,
    which may be text that looks like a key, is left out."""
    found: dict[tuple[str, str], list[int]] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*[\"']?([\w-]+)[\"']?\s*\]", line):
            table = header[1]
            found.setdefault((table, ""), []).append(number)
        elif key := re.match(r"\s*[\"']?([\w-]+)[\"']?\s*=", line):
            found.setdefault((table, key[1]), []).append(number)
    return {place: numbers[0] for place, numbers in found.items() if len(numbers) == 1}


def _entries(file: _File) -> Iterator[tuple[str, str, Any]]:
    """Table, key and value of every option; those for all commands first, with table ``""``."""
    tables = {name: table for name, table in file.content.items() if isinstance(table, dict)}
    for key, value in file.content.items():
        if key not in tables:
            yield "", key, value
    for name, table in tables.items():
        for key, value in table.items():
            yield name, key, value


def _check_names(file: _File, keys: Mapping[str, Mapping[str, click.Parameter]]) -> None:
    """Refuse tables that no command has, and keys that no option has.

    Raises:
        ConfigError: There is one, or a key is given twice.
    """
    for name, table in file.content.items():
        if isinstance(table, dict) and name not in keys:
            hint = did_you_mean(name, keys) or f"; tables are: {', '.join(keys)}"
            raise ConfigError(f"{file.at(name)}: no command is called {name!r}{hint}")
    seen: set[tuple[str, str]] = set()
    for table, key, _ in _entries(file):
        everything = {one for known in keys.values() for one in known}
        known = keys[table] if table else everything
        where, plain = file.at(table, key), _plain(key)
        if plain not in known:
            owner = f"[{table}] has" if table else "there is"
            others = [name for name, options in keys.items() if plain in options]
            verb = "has" if len(others) == 1 else "have"
            owners = f"; {' and '.join(others)} {verb} it"
            hint = owners if others else did_you_mean(plain, known)
            raise ConfigError(f"{where}: {owner} no option {key!r}{hint}")
        if (table, plain) in seen:
            raise ConfigError(f"{where}: {key!r} is given twice, with dash and underscore")
        seen.add((table, plain))


def _typed(param: click.Parameter, value: Any, folder: Path, where: str) -> Any:
    """A value as click takes it from the command line, which checks the rest."""
    if isinstance(param, click.Option) and param.is_flag:
        return _expect(value, bool, "true or false", where)
    if isinstance(param, click.Option) and param.count:
        return _expect(value, int, "a whole number", where)
    if param.nargs != 1 or param.multiple:
        values = value if isinstance(value, list) else [value]
        return [_text(param.type, one, folder, where) for one in values]
    return _text(param.type, value, folder, where)


def _text(kind: Any, value: Any, folder: Path, where: str) -> str:
    if isinstance(kind, click.Path):
        if not _expect(value, str, "a path in quotes", where):
            raise ConfigError(f"{where} is empty, expected a path; leave the line out")
        return str(folder / value)
    if isinstance(kind, click.types.IntParamType):
        return str(_expect(value, int, "a whole number", where))
    if isinstance(kind, click.types.FloatParamType):
        return str(_expect(value, (int, float), "a number", where))
    if isinstance(kind, (click.Choice, click.types.StringParamType)):
        return str(_expect(value, str, "text in quotes", where))
    # One of our own, which reads text, where a list is written with a mark between its numbers.
    kinds = getattr(kind, "toml", (int, float, str))
    between = getattr(kind, "between", "")
    expected = "a number" if str not in kinds else "a number or text in quotes"
    if between:
        expected = "a number, text in quotes or a list of numbers"
    values = value if isinstance(value, list) and value and between else [value]
    return between.join(str(_expect(one, kinds, expected, where)) for one in values)


def _expect(value: Any, kind: type | tuple[type, ...], expected: str, where: str) -> Any:
    """The value, if it is of a kind; true and false are no numbers."""
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if (isinstance(value, bool) and bool not in kinds) or not isinstance(value, kinds):
        raise ConfigError(f"{where} is {_shown(value)}, expected {expected}")
    return value


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value) if isinstance(value, (str, int, float, list)) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."

"""What a command needs, told to whoever calls it with nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import click

_MODEL = "ONNX file, or a directory that holds one"


@dataclass(frozen=True)
class _Guide:
    """What cannot be read from a command's options.

    Attributes:
        example: How it is typed.
        arguments: What its arguments are, by name in the usage line.
        beside: What to type before or after it, and why.
    """

    example: str
    arguments: dict[str, str] = field(default_factory=dict)
    beside: tuple[str, str] | None = None


_GUIDES = {
    "harden": _Guide(
        "mmbm-onnx harden model.onnx --clean-dir data/",
        {"MODEL": _MODEL},
        ("See first what of the model takes bounds", "mmbm-onnx inspect model.onnx"),
    ),
    "verify": _Guide(
        "mmbm-onnx verify model.onnx model.hardened.onnx --clean-dir held-out/ "
        "--detector model.detector.onnx",
        {"ORIGINAL": "the model as it was shipped", "HARDENED": "what harden made of it"},
        ("Make the hardened graph first", "mmbm-onnx harden model.onnx --clean-dir data/"),
    ),
    "scan": _Guide(
        "mmbm-onnx scan model.onnx --clean-dir data/",
        {"MODEL": _MODEL},
        (
            "A model that it suspects is best not deployed; others, and where it must be, harden",
            "mmbm-onnx harden model.onnx --clean-dir data/",
        ),
    ),
    "inspect": _Guide(
        "mmbm-onnx inspect model.onnx",
        {"MODEL": _MODEL},
        ("Then harden it", "mmbm-onnx harden model.onnx --clean-dir data/"),
    ),
    "bench": _Guide(
        "mmbm-onnx bench model.onnx model.hardened.onnx model.detector.onnx",
        {"ORIGINAL": "the model to compare with", "OTHER...": "graphs to time beside it"},
    ),
    "completion": _Guide(
        "mmbm-onnx completion bash >> ~/.bashrc", {"SHELL": "bash, zsh, fish or powershell"}
    ),
}


def guide(ctx: click.Context) -> list[str]:
    """Lines that say what a command needs, with an example and what comes before or after.

    Args:
        ctx: Of a command that lacks something.
    """
    known = _GUIDES.get(ctx.info_name or "")
    rows = []
    for param in ctx.command.params:
        if not param.required:
            continue
        if isinstance(param, click.Option):
            metavar = param.metavar or param.type.name.upper()
            rows.append((f"{param.opts[0]} {metavar}", param.help or ""))
        else:
            (name,) = param.get_usage_pieces(ctx)
            rows.append((name, known.arguments.get(name, "") if known else ""))
    names = [name.split()[0] for name, _ in rows]
    needed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    width = max(len(name) for name, _ in rows)
    lines = [f"{ctx.info_name} needs {needed}"]
    lines += [f"  {name:<{width}}  {' '.join(text.split())}".rstrip() for name, text in rows]
    usage = " ".join([ctx.command_path, *(name for name, _ in rows)])
    lines += ["For example:", f"  {known.example if known else usage}"]
    if known is not None and known.beside is not None:
        lines += [f"{known.beside[0]}:", f"  {known.beside[1]}"]
    return [*lines, f"All options: {ctx.command_path} --help"]

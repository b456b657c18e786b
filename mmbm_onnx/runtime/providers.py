"""ONNX Runtime itself and its execution providers, by name."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib.metadata
import io
import warnings
from types import ModuleType

from mmbm_onnx.errors import OptionError, RuntimeMissingError

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

ALIASES: dict[str, str] = {
    "cann": "CANNExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "cpu": CPU,
    "cuda": CUDA,
    "directml": "DmlExecutionProvider",
    "dml": "DmlExecutionProvider",
    "dnnl": "DnnlExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "qnn": "QNNExecutionProvider",
    "rocm": "ROCMExecutionProvider",
    "tensorrt": TENSORRT,
    "vitisai": "VitisAIExecutionProvider",
    "webgpu": "WebGpuExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
}
"""Short names that the command line accepts, and ONNX Runtime's own."""

INSTALL = "pip install 'mmbm-onnx[cpu]' (or 'mmbm-onnx[gpu]' for CUDA)"

# All of them install into the directory `onnxruntime/` and overwrite each other's files.
DISTRIBUTIONS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-rocm",
)


def load_onnxruntime() -> ModuleType:
    """The module ``onnxruntime``, imported on first use.

    Warns, once a process, when several of its distributions are installed over each other.

    Raises:
        RuntimeMissingError: It is not installed, or its installation is broken.
    """
    installed = _installed_distributions()
    _warn_of_conflict(installed)
    try:
        import onnxruntime
    except ImportError as error:
        if installed:
            raise RuntimeMissingError(
                f"ONNX Runtime is installed ({', '.join(installed)}) but cannot be imported: "
                f"{one_line(error)}; reinstall it: {INSTALL}"
            ) from error
        raise RuntimeMissingError(f"ONNX Runtime is not installed: {INSTALL}") from error
    if not hasattr(onnxruntime, "InferenceSession"):
        # What uninstalling one of two overlaid distributions leaves behind.
        raise RuntimeMissingError(
            f"the installation of ONNX Runtime is broken (no InferenceSession): uninstall "
            f"{' and '.join(installed) or 'onnxruntime'}, then {INSTALL}"
        )
    return onnxruntime  # type: ignore[no-any-return, unused-ignore]


def resolve_provider(name: str | None) -> str:
    """ONNX Runtime's name of an execution provider.

    Args:
        name: A short name in any case (``"cpu"``, ``"cuda"``, ...), a full one
            (``"CUDAExecutionProvider"``), or None for the CPU.

    Raises:
        OptionError: There is no such provider; similar names are suggested.
        RuntimeMissingError: ONNX Runtime is not installed.
    """
    if name is None:
        return CPU
    ort = load_onnxruntime()
    wanted = name.strip().lower()
    if wanted in ALIASES:
        return ALIASES[wanted]
    full = {*ALIASES.values(), *ort.get_all_providers(), *ort.get_available_providers()}
    by_lower: dict[str, str] = {provider.lower(): provider for provider in full}
    if wanted in by_lower:
        return by_lower[wanted]
    names = {alias: alias for alias in ALIASES} | by_lower
    close = [names[match] for match in difflib.get_close_matches(wanted, names, n=2)]
    hint = f"did you mean {' or '.join(close)}?" if close else f"known: {', '.join(ALIASES)}"
    raise OptionError(f"unknown execution provider {name!r}; {hint}")


def require_available(provider: str) -> None:
    """Make sure that the installed ONNX Runtime was built with a provider.

    Args:
        provider: A full name, see `resolve_provider`.

    Raises:
        RuntimeMissingError: It was not; what is available is named.
    """
    available = load_onnxruntime().get_available_providers()
    if provider in available:
        return
    way_out = (
        "install 'mmbm-onnx[gpu]'" if provider in (CUDA, TENSORRT) else "install a build of it"
    )
    raise RuntimeMissingError(
        f"{provider} is not in this ONNX Runtime (available: {', '.join(available)}); "
        f"{way_out}, after uninstalling the present one, or choose another provider"
    )


@functools.cache
def preload_cuda() -> None:
    """Load CUDA and cuDNN where pip has put them, with torch or by themselves: ONNX Runtime looks
    for them on the system's paths only. What is not found is told when a session does not start."""
    ort = load_onnxruntime()
    if hasattr(ort, "preload_dlls"):  # which prints what it does not find
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(Exception):
            ort.preload_dlls()


def provider_chain(
    provider: str, *, defaults: bool = False
) -> list[str | tuple[str, dict[str, str]]]:
    """What to ask ONNX Runtime for, so that nodes a provider lacks still run: CPU comes last.

    Args:
        provider: A full name, see `resolve_provider`.
        defaults: Whether CUDA runs as it does by default: in TensorFloat-32, whose 10 bits are too
            few to compare graphs by, and with a search at each new shape of a convolution's input,
            which takes longer than the few runs that a session is made for here.
    """
    exact = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    cuda = (CUDA, {} if defaults else exact)
    if provider == CPU:
        return [CPU]
    if provider == CUDA:
        return [cuda, CPU]
    if provider == TENSORRT:
        available = load_onnxruntime().get_available_providers()
        return [TENSORRT, *([cuda] if CUDA in available else []), CPU]
    return [provider, CPU]


def one_line(error: BaseException) -> str:
    """An exception's text without line breaks and runs of blanks."""
    return " ".join(str(error).split()) or type(error).__name__


@functools.cache
def _installed_distributions() -> tuple[str, ...]:
    found = []
    for name in DISTRIBUTIONS:
        try:
            importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found.append(name)
    return tuple(found)


@functools.cache
def _warn_of_conflict(installed: tuple[str, ...]) -> None:
    if len(installed) > 1:
        warnings.warn(
            f"{' and '.join(installed)} are installed over each other and break each other: "
            "uninstall all of them, then install one",
            RuntimeWarning,
            stacklevel=3,
        )

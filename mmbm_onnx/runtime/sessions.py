"""One ONNX Runtime session, on the provider that was asked for and on no other."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from mmbm_onnx.errors import ModelError, OptionError, RuntimeMissingError, listing
from mmbm_onnx.graph.mapped import relative
from mmbm_onnx.graph.precision import has_halves
from mmbm_onnx.graph.walk import all_graphs
from mmbm_onnx.runtime.providers import (
    CUDA,
    TENSORRT,
    load_onnxruntime,
    one_line,
    preload_cuda,
    provider_chain,
    require_available,
    resolve_provider,
)

# More than that on this machine is a slip of the pen, and would bring it down.
MOST_THREADS = max(64, 4 * (os.cpu_count() or 1))
# Above ERROR: every error comes back as an exception, and ours are one line.
_FATAL_ONLY = 4
# Seconds that a run of a model with loops may take: a file can hold one that never ends.
_PATIENCE = 300.0


class Session:
    """A model loaded into ONNX Runtime, with deterministic kernels where they exist.

    Args:
        model: A model in memory (a proto with its weights inside or mapped, or its bytes), or a
            file, which may keep weights as external data.
        provider: Execution provider, short or full name; None is the CPU.
        threads: Threads within one operator, at least 1; None lets ONNX Runtime choose.
        optimize: Whether ONNX Runtime may fuse and rewrite operators.
        spin: Whether threads without work wait busily, as they do by default; then the threads
            of one session take time from another that runs right after it.
        defaults: Whether CUDA runs as it does by default, which is for times, not for values: in
            TensorFloat-32, and with a search for the fastest convolutions at each new shape.
        label: What messages call the model; None is its path, if it is a file.

    Raises:
        RuntimeMissingError: ONNX Runtime is not installed, or the provider is missing from it or
            did not start (ONNX Runtime itself would go on without it, on the CPU).
        OptionError: No such provider, or ``threads`` outside 1 to ``MOST_THREADS``.
        ModelError: The graph cannot be loaded.
    """

    def __init__(
        self,
        model: onnx.ModelProto | bytes | Path,
        *,
        provider: str | None = None,
        threads: int | None = None,
        optimize: bool = True,
        spin: bool = True,
        defaults: bool = False,
        label: str | None = None,
    ) -> None:
        if threads is not None and not 1 <= threads <= MOST_THREADS:
            raise OptionError(f"threads is {threads}, expected 1 to {MOST_THREADS}")
        ort = load_onnxruntime()
        self.provider = resolve_provider(provider)
        require_available(self.provider)
        if self.provider in (CUDA, TENSORRT):
            preload_cuda()
        options = ort.SessionOptions()
        options.log_severity_level = _FATAL_ONLY
        options.use_deterministic_compute = True
        if threads is not None:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        if not spin:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if not optimize:
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._may_loop = isinstance(model, onnx.ModelProto) and _holds(model, "Loop")
        self._where = label or (str(model) if isinstance(model, Path) else "the model")
        source: str | bytes
        left_out: list[str] = []
        if isinstance(model, Path):
            source = str(model)
        elif isinstance(model, bytes):
            source = model
        else:
            plain, folder = relative(model)
            if folder is not None:
                left_out = _share_weights(options, plain, folder, optimize=optimize)
            source = _to_bytes(plain)
        try:
            self._session: Any = ort.InferenceSession(
                source,
                options,
                providers=provider_chain(self.provider, defaults=defaults),
                disabled_optimizers=left_out,
                enable_fallback=0,
            )
        except Exception as error:  # its exceptions share no base but this
            text = one_line(error)
            hint = _way_out(model, text)
            raise ModelError(f"ONNX Runtime cannot load {self._where}: {text}{hint}") from error
        self.providers: tuple[str, ...] = tuple(self._session.get_providers())
        if self.provider not in self.providers:
            raise RuntimeMissingError(
                f"{self.provider} did not start and ONNX Runtime fell back to "
                f"{', '.join(self.providers)}: its libraries (for CUDA: CUDA and cuDNN) or its "
                "device are missing; install them or choose another provider"
            )
        self.input_names: tuple[str, ...] = tuple(i.name for i in self._session.get_inputs())
        self.output_names: tuple[str, ...] = tuple(o.name for o in self._session.get_outputs())

    def run(
        self, outputs: Sequence[str] | None, feeds: Mapping[str, npt.NDArray[Any]]
    ) -> list[npt.NDArray[Any]]:
        """Run the graph once.

        Args:
            outputs: Names of the outputs wanted, in that order; None is all of them.
            feeds: Input name to array, in the dtype and shape of that input.

        Returns:
            One array per output.

        Raises:
            ModelError: An output does not exist, ONNX Runtime refuses to run, or a model with
                loops does not come to an end.
        """
        wanted = self.output_names if outputs is None else tuple(outputs)
        for name in wanted:
            if name not in self.output_names:
                raise ModelError(
                    f"{self._where} has no output {name!r}; it has {listing(self.output_names)}"
                )
        # An empty list would mean all outputs to ONNX Runtime.
        with self._told(), self._ended_in_time() as options:
            return list(self._session.run(list(wanted), dict(feeds), options)) if wanted else []

    def bound(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Callable[[], None]:
        """A run of the graph on the same inputs every time. On a GPU they are there already and
        outputs stay there, so that the time is that of the graph, not of copies.

        Args:
            feeds: As for ``run``.

        Returns:
            Runs it once, and returns when it is done. Raises as ``run`` does.
        """
        if self.provider not in (CUDA, TENSORRT):

            def plain() -> None:
                self.run(None, feeds)

            return plain
        value = load_onnxruntime().OrtValue.ortvalue_from_numpy
        binding = self._session.io_binding()
        with self._told():
            for name, array in feeds.items():
                binding.bind_ortvalue_input(name, value(np.ascontiguousarray(array), "cuda", 0))
            for name in self.output_names:
                binding.bind_output(name, "cuda")

        def run() -> None:
            with self._told(), self._ended_in_time() as options:
                self._session.run_with_iobinding(binding, options)
                binding.synchronize_outputs()

        return run

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """ONNX Runtime's errors as ours, in one line."""
        try:
            yield
        except Exception as error:
            text = one_line(error)
            hint = "; try a smaller batch" if "allocate" in text.lower() else ""
            if "terminate flag" in text:
                hint = f"; its loops did not end within {_PATIENCE:.0f} seconds"
            raise ModelError(f"ONNX Runtime cannot run {self._where}: {text}{hint}") from error

    @contextlib.contextmanager
    def _ended_in_time(self) -> Iterator[Any]:
        """Options of a run, which ends in an error if it takes too long; None without loops."""
        if not self._may_loop:
            yield None
            return
        options = load_onnxruntime().RunOptions()
        options.log_severity_level = _FATAL_ONLY

        def end() -> None:
            options.terminate = True

        timer = threading.Timer(_PATIENCE, end)
        timer.daemon = True
        timer.start()
        try:
            yield options
        finally:
            timer.cancel()
            timer.join()


def _share_weights(
    options: Any, proto: onnx.ModelProto, folder: Path, *, optimize: bool
) -> list[str]:
    """Let a session read weights where they lie, and make no copies of them in another layout or
    type before they are needed; returns the optimizers that are ruled out."""
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", str(folder)
    )
    if _holds(proto, "DequantizeLinear"):
        return []  # what is fused with it rounds otherwise, and is what runs in deployment
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    ort = load_onnxruntime()
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    if optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    # Folding copies what only lays weights out anew; halves are widened, which is needed.
    return [] if has_halves(proto) else ["ConstantFolding"]


def _holds(proto: onnx.ModelProto, operator: str) -> bool:
    """Whether a node of any graph or local function is of that operator."""
    return any(node.op_type == operator for graph in all_graphs(proto) for node in graph.node)


def _way_out(model: onnx.ModelProto | bytes | Path, text: str) -> str:
    """What helps, by ONNX Runtime's message."""
    if "not a registered function/op" in text:
        return "; export the model again with operators of standard ONNX only"
    if "same node name" in text:
        return "; give its nodes different names, or none"
    # Few providers have kernels for all float types.
    if "NOT_IMPLEMENTED" not in text:
        return ""
    if isinstance(model, Path):
        proto = onnx.load(model, load_external_data=False)
    else:
        proto = onnx.load_from_string(model) if isinstance(model, bytes) else model
    types = {weight.data_type for weight in proto.graph.initializer}
    types |= {value.type.tensor_type.elem_type for value in proto.graph.input}
    kinds = {"float64": onnx.TensorProto.DOUBLE, "bfloat16": onnx.TensorProto.BFLOAT16,
             "float16": onnx.TensorProto.FLOAT16}  # fmt: skip
    for name, kind in kinds.items():
        if kind in types:
            return f"; it lacks this operator for {name}: convert the model to float32"
    return ""


def _to_bytes(model: onnx.ModelProto) -> bytes:
    try:
        return bytes(model.SerializeToString())
    except Exception as error:  # ValueError or EncodeError, by protobuf's implementation
        raise ModelError(
            "the model is over protobuf's limit of 2 GiB and cannot be run from memory "
            f"({one_line(error)}); use a file with external data"
        ) from error

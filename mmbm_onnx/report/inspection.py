"""What ``inspect`` tells of a model: its sites, what is not covered and why, how it is fed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from mmbm_onnx.errors import ModelError, OptionError
from mmbm_onnx.graph.functions import inline_activation_functions
from mmbm_onnx.graph.interface import find_interface
from mmbm_onnx.graph.provenance import read_provenance
from mmbm_onnx.graph.read import OnnxModel
from mmbm_onnx.graph.sites import find_sites
from mmbm_onnx.graph.walk import standard_opset
from mmbm_onnx.types import Interface, Site, Uncovered

SCHEMA = "mmbm-onnx/inspection"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Inspection:
    """A model as the tool sees it.

    Attributes:
        path: The file, or the graph's name where there is none.
        sha256: Of the file's bytes, in hex, as ``OnnxModel.sha256``.
        ir_version: IR version.
        opset: Version of the standard operator set.
        opsets: Every imported operator set, domain to version; the standard one is ``ai.onnx``.
        producer: Tool that wrote the file, with its version; may be empty.
        nodes: Number of nodes of the main graph.
        interface: How it is fed and read, or None; then ``problem`` says why.
        problem: Why the model cannot be taken as a classifier; one line, or empty.
        sites: Activations that take a bound.
        uncovered: Activations that do not, each with the reason.
        inlined: Local functions that are inlined before bounding, since activations live in them.
        provenance: Our entries of its metadata, empty for a model that was not written by us.
    """

    path: str
    sha256: str
    ir_version: int
    opset: int
    opsets: dict[str, int]
    producer: str
    nodes: int
    interface: Interface | None
    problem: str
    sites: tuple[Site, ...]
    uncovered: tuple[Uncovered, ...]
    inlined: tuple[str, ...]
    provenance: dict[str, str]

    @property
    def coverage(self) -> float:
        """Share of the activations that take a bound, a fraction; 0 where there are none."""
        return coverage(len(self.sites), len(self.uncovered))

    def to_dict(self) -> dict[str, Any]:
        """Strict JSON types; see ``docs/report-schema.md``."""
        return {
            "schema": SCHEMA,
            "version": VERSION,
            "path": self.path,
            "sha256": self.sha256,
            "ir_version": self.ir_version,
            "opset": self.opset,
            "opsets": dict(self.opsets),
            "producer": self.producer,
            "nodes": self.nodes,
            "interface": None if self.interface is None else interface_dict(self.interface),
            "problem": self.problem,
            "coverage": self.coverage,
            "sites": [site_dict(site) for site in self.sites],
            "uncovered": [asdict(item) for item in self.uncovered],
            "inlined": list(self.inlined),
            "provenance": dict(self.provenance),
        }


def inspect_model(
    model: OnnxModel, *, input_name: str | None = None, logits_name: str | None = None
) -> Inspection:
    """Look at a model without running it.

    Args:
        model: The model.
        input_name: Graph input that carries samples, when there are several.
        logits_name: Tensor that holds the logits, when it cannot be found.

    Raises:
        OptionError: A name that was given does not fit the model. (A model that is no classifier
            is told in ``Inspection.problem``.)
    """
    proto, inlined = inline_activation_functions(model.proto)
    interface, problem = None, ""
    try:
        interface = find_interface(
            proto, input_name=input_name, logits_name=logits_name, label=model.label
        )
    except OptionError as error:
        if input_name is not None or logits_name is not None:
            raise
        problem = str(error)
    except ModelError as error:
        problem = str(error)
    report = find_sites(proto, logits=None if interface is None else interface.logits)
    opset = standard_opset(proto.opset_import)
    assert opset is not None  # checked when the model was read
    return Inspection(
        path=model.label,
        sha256=model.sha256,
        ir_version=int(model.proto.ir_version),
        opset=opset,
        opsets={
            entry.domain or "ai.onnx": int(entry.version) for entry in model.proto.opset_import
        },
        producer=f"{model.proto.producer_name} {model.proto.producer_version}".strip(),
        nodes=len(model.proto.graph.node),
        interface=interface,
        problem=problem,
        sites=report.sites,
        uncovered=report.uncovered,
        inlined=inlined,
        provenance=read_provenance(model.proto),
    )


def coverage(covered: int, uncovered: int) -> float:
    """Share of activations that take a bound, a fraction; 0 where there are none."""
    return covered / (covered + uncovered) if covered + uncovered else 0.0


def interface_dict(interface: Interface) -> dict[str, Any]:
    """An interface in JSON types."""
    return {
        "input": interface.input,
        "input_dtype": interface.input_dtype.name,
        "input_shape": list(interface.input_shape),
        "batch": interface.batch,
        "output": interface.output,
        "logits": interface.logits,
        "classes": interface.classes,
        "head": interface.head,
        "start": interface.start or interface.input,
    }


def site_dict(site: Site) -> dict[str, Any]:
    """A site in JSON types."""
    return {
        "tensor": site.tensor,
        "kind": site.kind,
        "dtype": site.dtype.name,
        "rank": site.rank,
        "channel_axis": site.channel_axis,
        "channels": site.channels,
        "upper": site.upper,
        "scope": site.scope,
    }


def model_dict(model: OnnxModel, interface: Interface) -> dict[str, Any]:
    """What a report tells of the model it is of."""
    return {
        "path": model.path,
        "sha256": model.sha256,
        "opset": standard_opset(model.proto.opset_import),
        "ir_version": int(model.proto.ir_version),
        **interface_dict(interface),
    }

"""Provenance: ours under one prefix, others' metadata untouched."""

from __future__ import annotations

import pytest
from graph_models import classifier

from mmbm_onnx.graph.provenance import PREFIX, read_provenance, stamp


def test_what_is_stamped_is_read_back_in_order() -> None:
    proto = classifier()
    proto.metadata_props.add(key="author", value="somebody")
    stamp(proto, {"version": "1", "method": "mmac"})
    assert list(read_provenance(proto).items()) == [("version", "1"), ("method", "mmac")]
    assert [entry.key for entry in proto.metadata_props] == [
        "author",
        "mmbm_onnx.version",
        "mmbm_onnx.method",
    ]
    assert proto.metadata_props[0].value == "somebody"


def test_other_models_have_none() -> None:
    proto = classifier()
    proto.metadata_props.add(key="mmbm", value="close, but not ours")
    assert read_provenance(proto) == {}


def test_a_key_is_never_written_twice_and_then_nothing_is() -> None:
    proto = classifier()
    stamp(proto, {"method": "mmac"})
    before = proto.SerializeToString()
    with pytest.raises(ValueError, match=f"{PREFIX}method"):
        stamp(proto, {"seed": "0", "method": "mmbm"})
    assert proto.SerializeToString() == before

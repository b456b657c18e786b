"""Damage done to files, by chance but always the same for a seed."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_WHOLE = (0, 1, -1, 2, 3, 7, 127, 128, 255, 2**15, 2**31 - 1, -(2**31), 2**40, 2**62, -(2**63))
_REAL = (0.0, -0.0, 1.0, -1.0, 1e-40, 1e38, -1e38, float("inf"), float("-inf"), float("nan"))
_TEXTS = (
    "",
    "x",
    "x" * 5000,
    "../x",
    "/etc/passwd",
    "\u202e",
    "a b\nc",
    "Relu",
    "Loop",
    "ai.onnx.ml",
)
_UNSIGNED = (
    FieldDescriptor.TYPE_UINT32,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_FIXED32,
    FieldDescriptor.TYPE_FIXED64,
)
_NARROW = (
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_SINT32,
    FieldDescriptor.TYPE_SFIXED32,
    FieldDescriptor.TYPE_UINT32,
)


def damaged_bytes(content: bytes, rng: random.Random) -> bytes:
    """Bytes cut short, flipped, doubled, blanked, moved or made up."""
    kind = rng.choice(("cut", "flip", "flip", "flip", "double", "blank", "noise", "swap", "tail"))
    if kind == "cut":
        return content[: rng.randrange(len(content))]
    if kind == "tail":
        return content + rng.randbytes(rng.randrange(1, 200))
    spoiled = bytearray(content)
    if kind == "flip":
        for _ in range(rng.choice((1, 1, 2, 8, 50))):
            spoiled[rng.randrange(len(spoiled))] ^= 1 << rng.randrange(8)
        return bytes(spoiled)
    start = rng.randrange(len(spoiled))
    end = min(len(spoiled), start + rng.choice((1, 4, 16, 200)))
    if kind == "double":
        spoiled[start:start] = spoiled[start:end]
    elif kind == "blank":
        spoiled[start:end] = bytes(end - start)
    elif kind == "noise":
        spoiled[start:end] = rng.randbytes(end - start)
    else:
        other = rng.randrange(len(spoiled))
        spoiled[start], spoiled[other] = spoiled[other], spoiled[start]
    return bytes(spoiled)


def damage_message(message: Message, rng: random.Random) -> None:
    """Change one to three fields of a message, anywhere in it, into others of their types."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = list(_places(message))
        if not places:
            return
        owner, field = rng.choice(places)
        if _repeated(field):
            _damage_list(owner, field, rng, places)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            others = [getattr(m, f.name) for m, f in places if _alike(f, field)]
            if rng.random() < 0.4 or not others:
                owner.ClearField(field.name)
            else:
                getattr(owner, field.name).CopyFrom(copy.deepcopy(rng.choice(others)))
        elif rng.random() < 0.15:
            owner.ClearField(field.name)
        else:
            setattr(owner, field.name, _other(getattr(owner, field.name), field, rng, places))


def _repeated(field: FieldDescriptor) -> bool:
    found = getattr(field, "is_repeated", None)
    return field.label == FieldDescriptor.LABEL_REPEATED if found is None else bool(found)


def _alike(one: FieldDescriptor, other: FieldDescriptor) -> bool:
    return not _repeated(one) and one.message_type is other.message_type


def _places(message: Message) -> Iterator[tuple[Message, FieldDescriptor]]:
    """Every field that is set, in the message and in those inside it."""
    for field, value in message.ListFields():
        yield message, field
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for inner in value if _repeated(field) else [value]:
                yield from _places(inner)


def _damage_list(
    owner: Message, field: FieldDescriptor, rng: random.Random, places: list[Any]
) -> None:
    values = getattr(owner, field.name)
    index = rng.randrange(len(values))
    kind = rng.choice(("drop", "double", "swap", "clear", "lengthen", "change", "change", "change"))
    if kind == "clear":
        owner.ClearField(field.name)
    elif kind == "drop":
        del values[index]
    elif kind in ("double", "lengthen"):
        again = copy.deepcopy(values[index])
        values.extend([again] * (1 if kind == "double" else rng.choice((3, 50, 1000))))
    elif kind == "swap":
        other = rng.randrange(len(values))
        first, second = copy.deepcopy(values[index]), copy.deepcopy(values[other])
        _put(values, index, second)
        _put(values, other, first)
    elif field.type == FieldDescriptor.TYPE_MESSAGE:
        damage_message(values[index], rng)
    else:
        values[index] = _other(values[index], field, rng, places)


def _put(values: Any, index: int, value: Any) -> None:
    if isinstance(value, Message):
        values[index].CopyFrom(value)
    else:
        values[index] = value


def _other(value: Any, field: FieldDescriptor, rng: random.Random, places: list[Any]) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        known = [getattr(m, f.name) for m, f in places if f.type == field.type and not _repeated(f)]
        return rng.choice((*_TEXTS, *known))
    if field.type == FieldDescriptor.TYPE_BYTES:
        return damaged_bytes(value, rng) if value else rng.randbytes(8)
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return rng.choice((*_REAL, value * 2, value + 1))
    if field.type == FieldDescriptor.TYPE_BOOL:
        return not value
    if field.type == FieldDescriptor.TYPE_ENUM:
        return rng.choice(field.enum_type.values).number
    number = rng.choice((*_WHOLE, value + 1, value - 1, value * 2, rng.randrange(30)))
    if field.type in _UNSIGNED:
        number = abs(number)
    bits = 31 if field.type in _NARROW else 63
    return max(-(2**bits) if field.type not in _UNSIGNED else 0, min(2**bits - 1, number))


def damaged_json(value: Any, rng: random.Random) -> Any:
    """A JSON value with one part of it made into something else."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        return {**value, key: damaged_json(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.5:
        index = rng.randrange(len(value))
        return [*value[:index], damaged_json(value[index], rng), *value[index + 1 :]]
    others: tuple[Any, ...] = (None, True, "", "x", [], {}, [[]], {"a": {}}, *_WHOLE, *_REAL)
    return rng.choice(others)

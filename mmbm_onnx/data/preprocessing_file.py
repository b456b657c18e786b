"""Preprocessing from JSON: Hugging Face's ``preprocessor_config.json`` or our own field names.

Hugging Face leaves some meanings to the Python class that the file names; where the file alone
does not decide, it is refused rather than guessed.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmbm_onnx.data.preprocessing import Preprocessing, Resample
from mmbm_onnx.errors import DataError, closest

_MAX_BYTES = 1 << 20

_OURS = tuple(field.name for field in dataclasses.fields(Preprocessing) if field.name != "notes")

_HF_USED = frozenset(
    {
        "crop_pct",
        "crop_size",
        "default_to_square",
        "do_center_crop",
        "do_convert_rgb",
        "do_flip_channel_order",
        "do_normalize",
        "do_rescale",
        "do_resize",
        "feature_extractor_type",
        "image_mean",
        "image_processor_type",
        "image_std",
        "resample",
        "rescale_factor",
        "rescale_offset",
        "size",
    }
)
# They change nothing about the values of one image.
_HF_IGNORED = frozenset(
    {
        "_valid_processor_keys",
        "auto_map",
        "data_format",
        "device",
        "disable_grouping",
        "input_data_format",
        "processor_class",
        "return_tensors",
        "transformers_version",
    }
)
# Keys of Hugging Face's config.json.
_OF_THE_MODEL = frozenset({"architectures", "id2label", "model_type"})
# The order of PIL.Image.Resampling.
_RESAMPLE_NUMBERS: tuple[Resample, ...] = (
    "nearest",
    "lanczos",
    "bilinear",
    "bicubic",
    "box",
    "hamming",
)
# What a bare number means as `size`, by the family of the class that reads it.
_SHORTEST = frozenset(
    {
        "bit",
        "chineseclip",
        "clip",
        "convnext",
        "levit",
        "mobilenetv1",
        "mobilenetv2",
        "mobilevit",
        "poolformer",
    }
)
_SQUARE = frozenset({"beit", "deit", "efficientnet", "segformer", "siglip", "vit"})
_CLASS_ENDING = re.compile(r"(imageprocessor|featureextractor)(fast|pil)?$")


def read_preprocessing(path: Path) -> Preprocessing:
    """The preprocessing a JSON file describes; see `Preprocessing.from_file`.

    Raises:
        DataError: The file is unreadable, has unknown keys, or asks for what is not done here.
    """
    config = _load(path)
    if _OF_THE_MODEL & config.keys() and not _HF_USED & config.keys():
        raise DataError(
            f"{path}: describes a model, not its preprocessing; give preprocessor_config.json, "
            "which is usually beside it"
        )
    try:
        if _HF_USED & config.keys() - {"resample"}:
            return _from_hugging_face(config, path)
        for key in config:
            if key not in _OURS:
                hint = _did_you_mean(key, _OURS) or f"; known: {', '.join(_OURS)}"
                raise DataError(f"unknown key {key!r}{hint}")
        return Preprocessing(**config)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _load(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > _MAX_BYTES:
        raise DataError(f"{path}: larger than {_MAX_BYTES} bytes, not a preprocessing file")
    try:
        config = json.loads(raw, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: not valid JSON: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise DataError(f"{path}: expected a JSON object of preprocessing settings")
    return config


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key is given twice")
    return result


def _from_hugging_face(config: dict[str, Any], path: Path) -> Preprocessing:
    # A key given as null is as good as absent: newer files list every setting.
    set_keys = {key: value for key, value in config.items() if value is not None}
    notes = _check_keys(set_keys, path)
    resize, crop = _geometry(set_keys)
    mean, std = _normalisation(set_keys)
    flip = _flag(set_keys, "do_flip_channel_order", False)
    if flip and (len(set(mean)) > 1 or len(set(std)) > 1):
        raise DataError(
            "do_flip_channel_order with image_mean or image_std that differ by channel does not "
            "say which order they are in; use 'channel_order', 'mean' and 'std' instead"
        )
    scale = set_keys.get("rescale_factor")
    return Preprocessing(
        scale=scale if _flag(set_keys, "do_rescale", True) else 1.0,
        mean=mean,
        std=std,
        resize=resize,
        crop=crop,
        resample=_resample(set_keys.get("resample", 2)),
        channel_order="bgr" if flip else "rgb",
        notes=notes,
    )


def _check_keys(config: dict[str, Any], path: Path) -> tuple[str, ...]:
    if config.get("rescale_offset"):
        raise DataError("rescale_offset is not supported; use 'scale', 'mean' and 'std' instead")
    ignored = []
    for key, value in config.items():
        if key in _HF_USED:
            continue
        if key not in _HF_IGNORED:
            if close := _did_you_mean(key, _HF_USED):
                raise DataError(f"unknown key {key!r}{close}")
            if value is not False:
                raise DataError(f"{key} is not supported; remove it if it does not matter")
        ignored.append(key)
    return (f"{path.name}: ignored {', '.join(sorted(ignored))}",) if ignored else ()


def _normalisation(config: dict[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    given = [key for key in ("image_mean", "image_std") if key in config]
    if "do_normalize" not in config and not given:
        raise DataError("neither do_normalize nor image_mean is given; say which it is")
    if not _flag(config, "do_normalize", True):
        return (), ()
    if len(given) < 2:
        raise DataError("do_normalize is on, but image_mean or image_std is missing")
    mean, std = (_numbers(config[key]) for key in ("image_mean", "image_std"))
    return mean, std


def _geometry(
    config: dict[str, Any],
) -> tuple[int | tuple[int, int] | None, tuple[int, int] | None]:
    reader = str(config.get("image_processor_type", config.get("feature_extractor_type", "")))
    family = _CLASS_ENDING.sub("", reader.lower())
    crop = _crop(config)
    if not _flag(config, "do_resize", "size" in config):
        return None, crop
    if "size" not in config:
        raise DataError("do_resize is on, but size is missing")
    size = _size("size", config["size"], _bare_number_is_square(config, family))
    crop_pct = config.get("crop_pct")
    if family in ("convnext", "levit") and crop_pct is None:
        crop_pct = 224 / 256
    if crop_pct is None:
        return size, crop
    if isinstance(crop_pct, bool) or not isinstance(crop_pct, int | float) or not 0 < crop_pct <= 1:
        raise DataError(f"crop_pct is {crop_pct!r}, expected a number above 0 and up to 1")
    if isinstance(size, tuple):
        raise DataError("crop_pct needs size as shortest_edge")
    if family == "convnext" and size >= 384:
        return (size, size), crop  # ConvNeXt squeezes large images instead of cropping them
    return int(size / crop_pct), crop or (size, size)


def _crop(config: dict[str, Any]) -> tuple[int, int] | None:
    if "crop_size" in config and "do_center_crop" not in config:
        raise DataError("crop_size is given without do_center_crop; say true or false")
    if not _flag(config, "do_center_crop", False):
        return None
    if "crop_size" not in config:
        raise DataError("do_center_crop is on, but crop_size is missing")
    crop = _size("crop_size", config["crop_size"], square=True)
    return crop if isinstance(crop, tuple) else (crop, crop)


def _bare_number_is_square(config: dict[str, Any], family: str) -> bool | None:
    if "default_to_square" in config:
        return _flag(config, "default_to_square", True)
    if family in _SHORTEST:
        return False
    return True if family in _SQUARE else None


def _size(name: str, value: Any, square: bool | None) -> int | tuple[int, int]:
    if isinstance(value, dict):
        if value.keys() == {"height", "width"}:
            return _integer(name, value["height"]), _integer(name, value["width"])
        if value.keys() == {"shortest_edge"}:
            return _integer(name, value["shortest_edge"])
        raise DataError(f"{name} is {value!r}; expected height and width, or shortest_edge alone")
    number = _integer(name, value)
    if square is None:
        raise DataError(
            f'{name} {number} could be a square or the shortest side; write {{"height": {number}, '
            f'"width": {number}}} or {{"shortest_edge": {number}}}'
        )
    return (number, number) if square else number


def _integer(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{name} holds {value!r}, expected a whole number")
    return value


def _numbers(value: Any) -> tuple[float, ...]:
    return tuple(value) if isinstance(value, list) else (value,)


def _flag(config: dict[str, Any], key: str, default: bool) -> bool:
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise DataError(f"{key} is {value!r}, expected true or false")
    return value


def _resample(value: Any) -> Resample:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 6:
        raise DataError(f"resample is {value!r}, expected a number from 0 to 5")
    return _RESAMPLE_NUMBERS[value]


def _did_you_mean(key: str, known: Iterable[str]) -> str:
    close = closest(key, known, cutoff=0.8)
    return f", did you mean {close!r}?" if close else ""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from mmbm_onnx.data import Preprocessing
from mmbm_onnx.errors import DataError

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PLAIN = {"do_resize": False, "do_normalize": False}


@pytest.fixture
def read(tmp_path):
    def read(config, raw: bytes | None = None) -> Preprocessing:
        path = tmp_path / "preprocessor_config.json"
        path.write_bytes(raw if raw is not None else json.dumps(config).encode())
        return Preprocessing.from_file(path)

    return read


def test_own_fields(read):
    assert read(
        {"scale": 1.0, "mean": MEAN, "resize": 256, "crop": [224, 224], "resample": "bicubic"}
    ) == Preprocessing(scale=1.0, mean=tuple(MEAN), resize=256, crop=(224, 224), resample="bicubic")
    assert read({}) == Preprocessing()


def test_own_description_can_be_read_back(read):
    asked = Preprocessing(mean=(0.1,), resize=(7, 8), channel_order="bgr")
    described = asked.describe(np.dtype("float32"))
    del described["notes"]
    assert read(described) == replace(asked, scale=1 / 255)


def test_vit_as_it_is_saved(read):
    got = read(
        {
            "do_convert_rgb": None,
            "do_normalize": True,
            "do_rescale": True,
            "do_resize": True,
            "image_mean": [0.5, 0.5, 0.5],
            "image_processor_type": "ViTImageProcessor",
            "image_std": [0.5, 0.5, 0.5],
            "resample": 2,
            "rescale_factor": 0.00392156862745098,
            "size": {"height": 224, "width": 224},
        }
    )
    assert got == Preprocessing(
        scale=0.00392156862745098, mean=(0.5,) * 3, std=(0.5,) * 3, resize=(224, 224)
    )


def test_clip_crops(read):
    got = read(
        {
            "crop_size": {"height": 224, "width": 224},
            "do_center_crop": True,
            "image_mean": MEAN,
            "image_std": STD,
            "resample": 3,
            "size": {"shortest_edge": 256},
            "processor_class": "CLIPProcessor",
        }
    )
    assert got == Preprocessing(
        mean=tuple(MEAN),
        std=tuple(STD),
        resize=256,
        crop=(224, 224),
        resample="bicubic",
        notes=("preprocessor_config.json: ignored processor_class",),
    )


@pytest.mark.parametrize(
    ("config", "resize", "crop"),
    [
        ({"crop_pct": 0.875, "size": 224}, 256, (224, 224)),
        ({"size": {"shortest_edge": 224}}, 256, (224, 224)),
        ({"crop_pct": 0.95, "size": {"shortest_edge": 288}}, 303, (288, 288)),
        ({"crop_pct": 0.95, "size": 384}, (384, 384), None),
    ],
)
def test_convnext_crops_small_and_squeezes_large_images(read, config, resize, crop):
    got = read({**config, "image_processor_type": "ConvNextImageProcessor", "do_normalize": False})
    assert (got.resize, got.crop) == (resize, crop)


@pytest.mark.parametrize(
    ("reader", "resize"),
    [
        ({"feature_extractor_type": "ViTFeatureExtractor"}, (192, 192)),
        ({"image_processor_type": "CLIPImageProcessorFast"}, 192),
        ({"image_processor_type": "MobileNetV2ImageProcessor"}, 192),
        ({"default_to_square": False}, 192),
        ({"default_to_square": True}, (192, 192)),
    ],
)
def test_bare_size_is_what_its_reader_makes_of_it(read, reader, resize):
    assert read({**reader, "size": 192, "do_normalize": False}).resize == resize


def test_bare_size_of_an_unknown_reader_is_not_guessed(read):
    with pytest.raises(DataError, match=r'192 could be a square.*"shortest_edge": 192'):
        read({"size": 192, "do_normalize": False})


def test_switches_turn_steps_off(read):
    got = read(
        {
            "do_rescale": False,
            "do_resize": False,
            "do_center_crop": False,
            "do_normalize": False,
            "size": {"height": 9, "width": 9},
            "crop_size": 9,
            "image_mean": MEAN,
            "image_std": STD,
        }
    )
    assert got == Preprocessing(scale=1.0)


def test_flipped_channels(read):
    assert read({**PLAIN, "do_flip_channel_order": True}).channel_order == "bgr"
    with pytest.raises(DataError, match="which order they are in"):
        read({"do_flip_channel_order": True, "image_mean": MEAN, "image_std": STD})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"men": [0.5]}, "unknown key 'men', did you mean 'mean'"),
        ({"colour": "bgr"}, "unknown key 'colour'; known: scale, mean"),
        ({"notes": []}, "unknown key 'notes'"),
        ({**PLAIN, "image_men": MEAN}, "unknown key 'image_men', did you mean 'image_mean'"),
        ({**PLAIN, "do_pad": True}, "do_pad is not supported"),
        ({**PLAIN, "keep_aspect_ratio": True}, "keep_aspect_ratio is not supported"),
        ({**PLAIN, "rescale_offset": True}, "rescale_offset is not supported"),
        ({"do_resize": False}, "neither do_normalize nor image_mean"),
        ({"do_normalize": True}, "image_mean or image_std is missing"),
        ({"image_mean": MEAN}, "image_mean or image_std is missing"),
        ({"do_resize": True, "do_normalize": False}, "size is missing"),
        ({**PLAIN, "do_center_crop": True}, "crop_size is missing"),
        ({**PLAIN, "crop_size": 5}, "without do_center_crop"),
        ({**PLAIN, "do_rescale": 1}, "do_rescale is 1, expected true or false"),
        ({**PLAIN, "resample": 9}, "resample is 9"),
        ({**PLAIN, "rescale_factor": "x"}, "scale holds 'x'"),
        ({"do_normalize": False, "size": {"longest_edge": 5}}, "expected height and width"),
        ({"do_normalize": False, "size": {"shortest_edge": 2.5}}, "expected a whole number"),
        ({"do_normalize": False, "size": {"height": 5, "width": 5}, "crop_pct": 0.9}, "crop_pct"),
        ({"do_normalize": False, "size": {"shortest_edge": 5}, "crop_pct": 2}, "crop_pct is 2"),
        ({"scale": 0}, "scale is 0"),
    ],
)
def test_what_is_not_understood_is_refused(read, config, message):
    with pytest.raises(DataError, match=rf"preprocessor_config\.json: .*{message}"):
        read(config)


def test_harmless_unknown_keys_are_listed(read):
    got = read({**PLAIN, "do_pad": False, "transformers_version": "4.40"})
    assert got.notes == ("preprocessor_config.json: ignored do_pad, transformers_version",)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"{", "not valid JSON"),
        (b"\xff\xfe\x00", "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
        (b"[1]", "expected a JSON object"),
        (b'{"scale": 1, "scale": 2}', "a key is given twice"),
        (b'{"scale": NaN}', "finite number"),
        (b" " * (1 << 21), "larger than"),
    ],
)
def test_hostile_files_are_refused_in_one_line(read, raw, message):
    with pytest.raises(DataError, match=message) as caught:
        read(None, raw)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"absent\.json: cannot be read"):
        Preprocessing.from_file(tmp_path / "absent.json")


def test_the_models_own_description_is_told_apart(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"architectures": ["ViT"], "id2label": {"0": "cat"}}))
    with pytest.raises(DataError, match=r"config\.json: describes a model, .* preprocessor_config"):
        Preprocessing.from_file(path)

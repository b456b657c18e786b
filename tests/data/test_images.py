from __future__ import annotations

import struct

import numpy as np
import pytest
from data_helpers import pattern
from PIL import Image

from mmbm_onnx.data.images import decode_image, is_image_name, with_channels
from mmbm_onnx.errors import DataError

RGB = pattern()


def decoded(path) -> np.ndarray:
    return np.asarray(decode_image(path)[0])


def save(tmp_path, image: Image.Image, name: str = "image.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def test_rgb_png_is_read_as_it_is(tmp_path):
    image, alpha = decode_image(save(tmp_path, Image.fromarray(RGB)))
    assert image.mode == "RGB"
    assert not alpha
    np.testing.assert_array_equal(np.asarray(image), RGB)


def test_grey_png_is_read_as_it_is(tmp_path):
    image, _ = decode_image(save(tmp_path, Image.fromarray(RGB[..., 0])))
    assert image.mode == "L"
    np.testing.assert_array_equal(np.asarray(image), RGB[..., 0])


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.bmp", "a.webp"])
def test_other_formats(tmp_path, name):
    image = Image.new("RGB", (8, 8), (200, 100, 50))
    lossless = {"lossless": True} if name.endswith("webp") else {}
    np.testing.assert_allclose(decoded(save(tmp_path, image, name, **lossless)), image, atol=3)


def test_black_and_white_becomes_0_and_255(tmp_path):
    bits = RGB[..., 0] > 100
    np.testing.assert_array_equal(
        decoded(save(tmp_path, Image.fromarray(bits))), np.where(bits, 255, 0)
    )


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, RGB),
        (2, RGB[:, ::-1]),
        (3, RGB[::-1, ::-1]),
        (4, RGB[::-1]),
        (5, RGB.swapaxes(0, 1)),
        (6, np.rot90(RGB, -1)),
        (7, RGB.swapaxes(0, 1)[::-1, ::-1]),
        (8, np.rot90(RGB)),
    ],
)
def test_exif_orientation_is_applied(tmp_path, orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path, Image.fromarray(RGB), exif=exif)
    np.testing.assert_array_equal(decoded(path), upright)


def test_exif_orientation_of_a_jpeg(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = save(tmp_path, Image.new("RGB", (16, 8)), "photo.jpg", exif=exif)
    assert decoded(path).shape == (16, 8, 3)


def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 128, 129, 257], [25700, 32767, 65406, 65535]], np.uint16)
    got = decoded(save(tmp_path, Image.fromarray(values)))
    np.testing.assert_array_equal(got, [[0, 0, 1, 1], [100, 127, 254, 255]])
    assert got.dtype == np.uint8


def test_32_bit_grey_outside_16_bits_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path, Image.fromarray(RGB))
    wide = Image.fromarray(np.array([[70000]], np.int32))
    monkeypatch.setattr("mmbm_onnx.data.images.ImageOps.exif_transpose", lambda _: wide)
    with pytest.raises(DataError, match="outside 16 bits"):
        decode_image(path)


def test_mode_without_8_bit_meaning_is_refused(tmp_path, monkeypatch):
    path = save(tmp_path, Image.fromarray(RGB))
    monkeypatch.setattr("mmbm_onnx.data.images.ImageOps.exif_transpose", lambda i: i.convert("F"))
    with pytest.raises(DataError, match="image mode 'F'"):
        decode_image(path)


def test_alpha_is_dropped_and_reported(tmp_path):
    alpha = np.full((*RGB.shape[:2], 1), 7, np.uint8)
    image, had_alpha = decode_image(
        save(tmp_path, Image.fromarray(np.concatenate([RGB, alpha], -1)))
    )
    assert had_alpha
    np.testing.assert_array_equal(np.asarray(image), RGB)


def test_grey_with_alpha_becomes_grey(tmp_path):
    both = np.stack([RGB[..., 0], RGB[..., 1]], -1)
    image, had_alpha = decode_image(save(tmp_path, Image.fromarray(both)))
    assert had_alpha
    np.testing.assert_array_equal(np.asarray(image), RGB[..., 0])


def test_transparent_colour_is_reported(tmp_path):
    path = save(tmp_path, Image.fromarray(RGB), transparency=(0, 4, 8))
    image, had_alpha = decode_image(path)
    assert had_alpha
    np.testing.assert_array_equal(np.asarray(image), RGB)


def test_palette_becomes_rgb(tmp_path):
    image = Image.fromarray(RGB).quantize(256)
    path = save(tmp_path, image)
    assert Image.open(path).mode == "P"
    np.testing.assert_array_equal(decoded(path), np.asarray(image.convert("RGB")))
    np.testing.assert_allclose(decoded(path).astype(int), RGB.astype(int), atol=4)


def test_palette_with_transparency_keeps_its_colours(tmp_path):
    image = Image.fromarray(RGB).quantize(256)
    image_out, had_alpha = decode_image(save(tmp_path, image, transparency=0))
    assert had_alpha
    np.testing.assert_array_equal(np.asarray(image_out), np.asarray(image.convert("RGB")))


def test_cmyk_jpeg_becomes_rgb_not_a_negative(tmp_path):
    red = Image.new("RGB", (16, 16), (250, 10, 10)).convert("CMYK")
    got = decoded(save(tmp_path, red, "cmyk.jpg", quality=95))
    np.testing.assert_allclose(got[8, 8], [250, 10, 10], atol=8)


def test_16_bit_colour_keeps_the_high_byte(tmp_path):
    import zlib

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    row = b"\0" + struct.pack(">3H", 0xFFFF, 0x80FF, 0x0100)
    path = tmp_path / "deep.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(row))
        + chunk(b"IEND", b"")
    )
    np.testing.assert_array_equal(decoded(path), [[[255, 128, 1]]])


@pytest.mark.parametrize("factor", [0.9, 0.4])
def test_decompression_bomb_is_an_error_from_the_limit_on(tmp_path, monkeypatch, factor):
    path = save(tmp_path, Image.new("L", (100, 100)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(100 * 100 * factor))
    with pytest.raises(DataError, match=r"image\.png: too many pixels"):
        decode_image(path)


@pytest.mark.parametrize("name", ["noise.png", "noise.jpg"])
def test_truncated_image_is_named(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = save(tmp_path, Image.fromarray(noise), name)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(DataError, match=f"{name}: not a readable") as caught:
        decode_image(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("raw", [b"", b"text that is no image", b"\x89PNG\r\n\x1a\n"])
def test_files_that_are_no_images_are_named(tmp_path, raw):
    path = tmp_path / "fake.png"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"fake\.png: not a readable PNG"):
        decode_image(path)


def test_damaged_bytes_never_escape_as_another_error(tmp_path):
    generator = np.random.default_rng(1)
    for name in ("a.png", "a.jpg", "a.bmp", "a.webp"):
        raw = np.frombuffer(save(tmp_path, Image.fromarray(RGB), name).read_bytes(), np.uint8)
        for trial in range(40):
            damaged = raw.copy()
            damaged[generator.integers(0, len(raw), 3)] = generator.integers(0, 256, 3)
            path = tmp_path / f"{trial}-{name}"
            path.write_bytes(damaged.tobytes())
            try:
                image, _ = decode_image(path)
            except DataError as error:
                assert str(path) in str(error)
            else:
                assert image.mode in ("L", "RGB")


def test_animation_is_refused(tmp_path):
    frames = [Image.new("L", (4, 4), v) for v in (0, 90)]
    path = save(tmp_path, frames[0], save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="animation of 2 frames"):
        decode_image(path)


def test_first_picture_of_a_cameras_jpeg(tmp_path):
    pictures = [Image.new("RGB", (8, 8), (v, v, v)) for v in (200, 20)]
    path = tmp_path / "camera.jpg"
    pictures[0].save(path, "MPO", save_all=True, append_images=pictures[1:])
    np.testing.assert_allclose(decoded(path), 200, atol=2)


def test_other_formats_are_not_even_tried(tmp_path):
    path = tmp_path / "really_a_gif.png"
    Image.new("P", (4, 4)).save(path, "GIF")
    with pytest.raises(DataError, match="not a readable PNG, JPEG, BMP or WebP"):
        decode_image(path)


def test_channels_follow_the_model():
    grey = np.asarray(with_channels(Image.fromarray(RGB), 1)).astype(int)
    luma = RGB @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(grey, luma, atol=1)
    colour = np.asarray(with_channels(Image.fromarray(RGB[..., 0]), 3))
    np.testing.assert_array_equal(colour, np.repeat(RGB[..., :1], 3, -1))


def test_image_names(tmp_path):
    assert is_image_name(tmp_path / "A.PnG")
    assert is_image_name(tmp_path / "a.JPG")
    assert not is_image_name(tmp_path / "a.gif")
    assert not is_image_name(tmp_path / "png")

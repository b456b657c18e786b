from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from data_helpers import interface, pattern, save_grey

from mmbm_onnx.data import Preprocessing, read_samples
from mmbm_onnx.errors import DataError
from mmbm_onnx.types import Interface

GREY = interface(1, 4, 4)
X = np.arange(5 * 16, dtype=np.float32).reshape(5, 1, 4, 4)
Y = np.array([0, 1, 2, 0, 1])


@pytest.fixture
def read(tmp_path):
    def read(model=GREY, preprocessing=None, *, triggered=False, max_bytes=1 << 20, **arrays):
        np.savez(tmp_path / "set.npz", **arrays)
        return read_samples(
            tmp_path / "set.npz", model, preprocessing, triggered=triggered, max_bytes=max_bytes
        )

    return read


def npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def header(text: str, version: bytes = b"\x01\x00") -> bytes:
    length = len(text).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + length + text.encode("latin1")


def archive(tmp_path, members, compression=zipfile.ZIP_STORED):
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, raw in members:
            file.writestr(name, raw)
    return path


TOKENS = Interface("x", np.dtype(np.int32), (None, 6), None, "y", "y", 3, start="e")


def test_integers_are_passed_to_a_model_that_takes_them(read):
    x = np.arange(30).reshape(5, 6)
    for dtype in (np.int64, np.uint8, ">i2", np.uint64):
        samples = read(TOKENS, Preprocessing(scale=9.0), x=x.astype(dtype), y=Y)
        assert samples.x.dtype == np.int32
        np.testing.assert_array_equal(samples.x, x)
        kind = np.dtype(dtype).newbyteorder("=")
        assert samples.notes == (f"x is {kind}: passed to the model as it is, no preprocessing",)
        assert samples.warnings[0].endswith("the preprocessing options do not apply")


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.full((5, 6), 2**31), "values from 2147483648 to 2147483648 overflow the model's int32"),
        (np.full((5, 6), -(2**63)), "overflow the model's int32 input"),
        (np.full((5, 6), 2**64 - 1, np.uint64), "overflow the model's int32 input"),
        (np.zeros((5, 7), int), r"shape \(5, 7\), the model takes \(n, 6\); x that is not uint8"),
        (np.zeros((5, 6)), "dtype float64; expected int32 .passed to the model as it is. or uint8"),
        (np.zeros((5, 6), bool), "dtype bool; expected int32"),
    ],
)
def test_what_a_model_of_integers_does_not_take(read, x, message):
    with pytest.raises(DataError, match=message):
        read(TOKENS, x=x, y=Y)


@pytest.mark.parametrize(
    ("shape", "tokens"), [((16, 3), True), ((4, 4, 3), True), ((2, 6, 4), False), ((5,) * 4, False)]
)
def test_uint8_that_can_be_no_image_is_passed_as_it_is(read, shape, tokens):
    model = Interface(
        "x", np.dtype(np.int64), (None, *shape), None, "y", "y", 3, start="e", tokens=tokens
    )
    x = np.random.default_rng(0).integers(0, 9, (5, *shape), np.uint8)
    np.testing.assert_array_equal(read(model, x=x, y=Y).x, x)
    with pytest.raises(DataError, match="the model takes"):
        read(model, x=x[:, 1:], y=Y)


def test_no_folder_of_images_for_tokens(tmp_path):
    save_grey(tmp_path / "0" / "a.png", 9)
    model = Interface("x", np.dtype(np.uint8), (None, 4, 4), None, "y", "y", 1, "logits", "e", True)
    with pytest.raises(DataError, match="is looked up in a table, not seen; give samples as uint8"):
        read_samples(tmp_path, model)


def test_images_for_a_model_that_takes_pixels_as_integers(read):
    pixels = np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3)
    model = Interface("x", np.dtype(np.uint8), (None, 3, 4, 4), None, "y", "y", 3, start="f")
    samples = read(model, x=pixels, y=[0])
    np.testing.assert_array_equal(samples.x, pixels.transpose(0, 3, 1, 2))
    assert samples.preprocessing["scale"] == 1.0


def test_float_x_is_passed_as_it_is(read):
    samples = read(x=X, y=Y.astype(np.int32), preprocessing=Preprocessing(scale=9.0))
    np.testing.assert_array_equal(samples.x, X)
    assert samples.y.tolist() == Y.tolist()
    assert samples.y.dtype == np.int64
    assert samples.target is None
    assert samples.source.endswith("set.npz")
    assert samples.notes == ("x is float: passed to the model as it is, no preprocessing",)
    assert samples.preprocessing is None
    (warning,) = samples.warnings
    assert warning.endswith("'x' is float: the preprocessing options do not apply")
    assert read(x=X, y=Y).warnings == ()


@pytest.mark.parametrize("dtype", [">f4", "<f8", "f2"])
@pytest.mark.parametrize("model_dtype", [np.float16, np.float32, np.float64])
def test_float_x_is_cast_to_the_models_dtype(read, dtype, model_dtype):
    samples = read(interface(1, 4, 4, dtype=model_dtype), x=X.astype(dtype))
    assert samples.x.dtype == model_dtype
    assert samples.x.dtype.isnative
    np.testing.assert_array_equal(samples.x, X)


def test_cast_that_overflows_is_refused(read):
    with pytest.raises(DataError, match="'x': values overflow the model's float16 input"):
        read(interface(1, 4, 4, dtype=np.float16), x=X * 1e4)


def test_infinity_that_was_there_is_left_to_the_gate(read):
    samples = read(x=np.full((2, 1, 4, 4), np.inf))
    assert np.isinf(samples.x).all()


def test_fortran_order_and_compression(tmp_path):
    np.savez_compressed(tmp_path / "set.npz", x=np.asfortranarray(X), y=Y)
    samples = read_samples(tmp_path / "set.npz", GREY)
    np.testing.assert_array_equal(samples.x, X)
    assert samples.x.flags.c_contiguous


def test_labels_are_optional(read):
    samples = read(x=X)
    assert samples.y is None


def test_triggered_set(read):
    samples = read(x=X, y=Y, target=np.full(5, 2), triggered=True)
    assert samples.target.tolist() == [2] * 5
    for one in (np.int64(2), np.full(1, 2)):
        assert read(x=X, y=Y, target=one, triggered=True).target.tolist() == [2] * 5
    with pytest.raises(DataError, match=r"'target': shape \(2,\) beside x"):
        read(x=X, y=Y, target=np.full(2, 2), triggered=True)
    with pytest.raises(DataError, match=r"'y': shape \(1,\) beside x"):
        read(x=X, y=np.full(1, 2), target=Y, triggered=True)
    with pytest.raises(DataError, match="no member 'target'"):
        read(x=X, y=Y, triggered=True)
    with pytest.raises(DataError, match="no member 'y' with the true labels; 'target' needs it"):
        read(x=X, target=Y)


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
def test_uint8_images_are_preprocessed(read, layout):
    pixels = np.stack([pattern(5, 4), pattern(5, 4)[::-1]])
    x = pixels if layout == "nhwc" else pixels.transpose(0, 3, 1, 2)
    samples = read(interface(3, 5, 4), x=x, y=[0, 1])
    np.testing.assert_array_equal(samples.x, np.float32(pixels.transpose(0, 3, 1, 2) / 255))


def test_grey_uint8_images_serve_any_model(read):
    pixels = pattern(4, 4)[None, ..., 0]
    grey = read(GREY, Preprocessing(scale=1.0), x=pixels)
    np.testing.assert_array_equal(grey.x, pixels[:, None])
    colour = read(interface(8, 8, 3), Preprocessing(scale=1.0), x=pixels)
    assert colour.x.shape == (1, 8, 8, 3)
    np.testing.assert_array_equal(colour.x[..., 0], colour.x[..., 2])


def test_colour_uint8_images_become_grey_for_a_grey_model(read):
    samples = read(interface(4, 4), Preprocessing(scale=1.0), x=pattern(4, 4)[None])
    luma = pattern(4, 4) @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(samples.x[0], luma, atol=1)


@pytest.mark.parametrize("dtype", [np.int64, np.bool_, np.complex64, np.int8, np.longdouble])
def test_other_x_is_refused(read, dtype):
    with pytest.raises(DataError, match=r"set\.npz: 'x': dtype .*; expected float .* or uint8"):
        read(x=X.astype(dtype))


@pytest.mark.parametrize("shape", [(5, 4, 4, 1), (5, 4, 4), (5, 1, 4, 5), (80,)])
def test_float_x_in_another_shape_is_refused(read, shape):
    with pytest.raises(DataError, match=r"the model takes \(n, 1, 4, 4\)"):
        read(x=np.zeros(shape, np.float32))


def test_float_x_of_a_dynamic_axis(read):
    assert read(interface(1, None, None), x=X).x.shape == X.shape


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (Y.astype(np.float32), "'y': dtype float32, expected integer"),
        (np.array(list("abcab")), "'y': dtype <U1 is not a plain number"),
        (Y[:, None], r"'y': shape \(5, 1\) beside x of shape \(5, 1, 4, 4\)"),
        (Y[:4], r"'y': shape \(4,\) beside x"),
        (np.array(3), r"'y': shape \(\) beside x"),
        (np.full(5, 2**63, np.uint64), "over 2"),
    ],
)
def test_labels_that_are_no_indices_are_refused(read, y, message):
    with pytest.raises(DataError, match=message):
        read(x=X, y=y)


def test_members_are_named_exactly(read):
    with pytest.raises(DataError, match="no member 'x'; it has 'x_train': rename it"):
        read(x_train=X, y=Y)
    with pytest.raises(DataError, match=r"no member 'y' .*; it has 'labels': rename it"):
        read(x=X, labels=Y)
    with pytest.raises(DataError, match="no member 'x'; it has 'Images': rename it"):
        read(Images=X, y=Y, ids=Y)
    with pytest.raises(DataError, match=r"no member 'y' .*; it has 'a', 'b': rename it"):
        read(x=X, a=Y, b=Y)
    assert read(x=X, y=Y, extra=Y).notes[0] == "set.npz: ignored extra"


def test_member_twice_is_refused(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = archive(tmp_path, [("x.npy", npy(X)), ("x.npy", npy(X + 1))])
    with pytest.raises(DataError, match=r"member 'x\.npy' is there 2 times"):
        read_samples(path, GREY)


def test_pickled_objects_are_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    np.savez(tmp_path / "set.npz", x=X, y=np.array([Bomb()] * 5, dtype=object))
    with pytest.raises(DataError, match="'y': holds pickled objects"):
        read_samples(tmp_path / "set.npz", GREY)
    assert not (tmp_path / "exploded").exists()


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (5, 1, 4, 4), }\n"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (header(GOOD.replace("(5,", "(1000000000000,")), "declares shape .1000000000000, 1, 4, 4."),
        (header(GOOD.replace("(5,", "(-5,")), "negative axis"),
        (header(GOOD) + b"\0" * 319, "320 bytes, but holds 319"),
        (header(GOOD) + b"\0" * 321, "320 bytes, but holds 321"),
        (header(GOOD.replace("<f4", "|O")), "holds pickled objects"),
        (header(GOOD.replace("'<f4'", "[('a', '<f4')]")), "is not a plain number"),
        (header(GOOD.replace("'<f4'", "'<M8[s]'")), "is not a plain number"),
        (header(GOOD.replace("'<f4'", "__import__('os')")), "damaged .npy header"),
        (header("(" * 9000), "damaged .npy header"),
        (header(" " * 60000), "damaged .npy header"),
        (header(GOOD, b"\x03\x00"), r"version \(3, 0\)"),
        (b"\x93NUMPY\x01", "damaged .npy header"),
        (b"", "damaged .npy header"),
        (b"GIF89a not an array", "damaged .npy header"),
    ],
)
def test_hostile_headers_are_refused_before_allocation(tmp_path, monkeypatch, raw, message):
    path = archive(tmp_path, [("x.npy", raw)])
    monkeypatch.setattr("mmbm_onnx.data.npy.load_member", None)
    monkeypatch.setattr(np, "empty", None)
    with pytest.raises(DataError, match=message) as caught:
        read_samples(path, GREY)
    assert "set.npz: 'x'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_header_version_2_is_read(tmp_path):
    path = archive(tmp_path, [("x.npy", header(GOOD, b"\x02\x00") + X.tobytes())])
    np.testing.assert_array_equal(read_samples(path, GREY).x, X)


def test_zip_bomb_is_over_the_limit(tmp_path):
    big = np.zeros((1000, 1, 4, 4), np.float32)
    np.savez_compressed(tmp_path / "set.npz", x=big)
    assert (tmp_path / "set.npz").stat().st_size < 2000
    with pytest.raises(DataError, match="bytes unpacked, over the limit of 60000"):
        read_samples(tmp_path / "set.npz", GREY, max_bytes=60_000)
    assert len(read_samples(tmp_path / "set.npz", GREY, max_bytes=70_000)) == 1000


def test_images_that_grow_over_the_limit_are_refused(read):
    with pytest.raises(DataError, match="over the limit of 100000"):
        read(interface(1, 224, 224), x=np.zeros((5, 4, 4), np.uint8), max_bytes=100_000)


def test_entry_that_claims_more_than_it_stores_is_refused(tmp_path):
    raw = header(GOOD.replace("(5,", "(5000000,")) + X.tobytes()
    path = archive(tmp_path, [("x.npy", raw)])
    data = bytearray(path.read_bytes())
    central = data.rindex(b"PK\x01\x02")
    claimed = len(header(GOOD.replace("(5,", "(5000000,"))) + 5_000_000 * 64
    data[central + 24 : central + 28] = claimed.to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(DataError, match="stored bytes cannot hold"):
        read_samples(path, GREY)


@pytest.mark.parametrize("copies", [1, 2000])
def test_flipped_bits_are_noticed(tmp_path, copies):
    path = archive(tmp_path, [("x.npy", npy(np.tile(X, (copies, 1, 1, 1))))])
    data = bytearray(path.read_bytes())
    data[data.rindex(X.tobytes()) + 100] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"'x': damaged .*: Bad CRC-32"):
        read_samples(path, GREY)


def test_damaged_compression_is_noticed(tmp_path):
    noise = np.random.default_rng(0).normal(size=(50, 1, 4, 4))
    path = archive(tmp_path, [("x.npy", npy(noise))], zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    data[2000:2100] = bytes(100)
    path.write_bytes(data)
    with pytest.raises(DataError, match="'x': damaged"):
        read_samples(path, GREY)


def test_encrypted_and_unusual_entries_are_refused(tmp_path):
    path = archive(tmp_path, [("x.npy", npy(X))], zipfile.ZIP_LZMA)
    with pytest.raises(DataError, match="unusual compression"):
        read_samples(path, GREY)
    path = archive(tmp_path, [("x.npy", npy(X))])
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="encrypted"):
        read_samples(path, GREY)


@pytest.mark.parametrize("raw", [b"", b"text", b"PK\x03\x04" * 20])
def test_files_that_are_no_archives_are_named(tmp_path, raw):
    path = tmp_path / "set.npz"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"set\.npz: not a \.npz archive"):
        read_samples(path, GREY)


def test_random_damage_never_escapes_as_another_error(tmp_path):
    np.savez_compressed(tmp_path / "set.npz", x=X, y=Y)
    raw = np.frombuffer((tmp_path / "set.npz").read_bytes(), np.uint8)
    generator = np.random.default_rng(2)
    refused = 0
    for _ in range(300):
        damaged = raw.copy()
        damaged[generator.integers(0, len(raw), 2)] = generator.integers(0, 256, 2)
        (tmp_path / "set.npz").write_bytes(damaged.tobytes())
        try:
            samples = read_samples(tmp_path / "set.npz", GREY, max_bytes=1 << 16)
        except DataError as error:
            refused += 1
            assert "\n" not in str(error)
        else:
            np.testing.assert_array_equal(samples.x, X)
    assert refused > 100


def test_uint8_for_a_model_that_takes_no_images(read):
    with pytest.raises(DataError, match="takes no images; give samples as float32 x"):
        read(interface(16), x=np.zeros((5, 16), np.uint8))


def test_empty_uint8_is_refused(read):
    with pytest.raises(DataError, match="'x': empty"):
        read(x=np.zeros((0, 4, 4), np.uint8))


def test_directory_with_one_archive(tmp_path):
    np.savez(tmp_path / "only.npz", x=X, y=Y)
    (tmp_path / ".hidden.npz").write_bytes(b"")
    (tmp_path / "README.md").write_text("about")
    assert len(read_samples(tmp_path, GREY)) == 5
    np.savez(tmp_path / "second.npz", x=X, y=Y)
    with pytest.raises(DataError, match=r"holds 2 \.npz files \(only\.npz, second\.npz"):
        read_samples(tmp_path, GREY)


def test_archive_beside_folders_is_ambiguous(tmp_path):
    np.savez(tmp_path / "set.npz", x=X)
    save_grey(tmp_path / "cat" / "1.png", 0)
    with pytest.raises(DataError, match=r"holds both set\.npz and folders \(cat"):
        read_samples(tmp_path, GREY)


def test_path_that_is_neither(tmp_path):
    with pytest.raises(DataError, match="no such file or directory"):
        read_samples(tmp_path / "absent", GREY)
    (tmp_path / "x.npy").write_bytes(npy(X))
    with pytest.raises(DataError, match=r"x\.npy: expected a directory of class folders or an"):
        read_samples(tmp_path / "x.npy", GREY)

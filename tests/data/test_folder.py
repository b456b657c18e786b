from __future__ import annotations

import shutil

import numpy as np
import pytest
from data_helpers import interface, save_grey
from PIL import Image

from mmbm_onnx.data import Preprocessing, read_samples
from mmbm_onnx.errors import DataError

GREY = interface(1, 4, 4)
RAW = Preprocessing(scale=1.0)


def labels_and_values(samples) -> list[tuple[int, int]]:
    return [(int(y), int(x.flat[0])) for x, y in zip(samples.x, samples.y, strict=True)]


def test_folders_sorted_by_name_are_the_classes(tmp_path):
    for value, name in enumerate(["cat/b.png", "cat/a.PNG", "ant/z.png", "dog/q.bmp"]):
        save_grey(tmp_path / name, value)
    samples = read_samples(tmp_path, GREY, RAW)
    assert labels_and_values(samples) == [(0, 2), (1, 1), (1, 0), (2, 3)]
    assert samples.class_names == ("ant", "cat", "dog")
    assert samples.x.shape == (4, 1, 4, 4)
    assert samples.x.dtype == np.float32
    assert samples.y.dtype == np.int64
    assert samples.source == str(tmp_path)
    assert samples.target is None


def test_integer_folders_are_the_indices_themselves(tmp_path):
    for name in ("10", "9", "2"):
        save_grey(tmp_path / name / "a.png", int(name))
    samples = read_samples(tmp_path, interface(1, 4, 4, classes=11), RAW)
    assert labels_and_values(samples) == [(2, 2), (9, 9), (10, 10)]
    assert samples.class_names == ()


def test_one_name_that_is_no_integer_makes_all_of_them_names(tmp_path):
    for value, name in enumerate(("10", "9", "nine")):
        save_grey(tmp_path / name / "a.png", value)
    samples = read_samples(tmp_path, GREY, RAW)
    assert samples.class_names == ("10", "9", "nine")
    assert labels_and_values(samples) == [(0, 0), (1, 1), (2, 2)]


def test_empty_folder_keeps_its_place(tmp_path):
    save_grey(tmp_path / "a" / "1.png", 5)
    (tmp_path / "b").mkdir()
    save_grey(tmp_path / "c" / "1.png", 7)
    samples = read_samples(tmp_path, GREY, RAW)
    assert labels_and_values(samples) == [(0, 5), (2, 7)]
    assert samples.class_names == ("a", "b", "c")


def test_images_without_folders_have_no_labels(tmp_path):
    for value in (3, 1, 2):
        save_grey(tmp_path / "set" / f"{value}.png", value)
    (tmp_path / "set" / "notes.csv").write_text("of the images")
    samples = read_samples(tmp_path / "set", GREY, RAW)
    assert samples.y is None
    assert samples.class_names == ()
    assert [int(x.flat[0]) for x in samples.x] == [1, 2, 3]
    (tmp_path / "set" / "4.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"4\.png: a broken link"):
        read_samples(tmp_path / "set", GREY, RAW)


def test_missing_named_folder_would_shift_the_labels(tmp_path):
    for name in ("ant", "dog"):
        save_grey(tmp_path / name / "a.png", 0)
    with pytest.raises(DataError, match="2 class folders for a model of 3 classes; add empty"):
        read_samples(tmp_path, GREY)


def test_missing_integer_folders_are_fine(tmp_path):
    save_grey(tmp_path / "002" / "a.png", 0)
    assert read_samples(tmp_path, GREY).y.tolist() == [2]


@pytest.mark.parametrize("name", ["3", "-1", "9" * 30])
def test_integer_outside_the_model_is_refused(tmp_path, name):
    save_grey(tmp_path / name / "a.png", 0)
    with pytest.raises(DataError, match="outside the model's 0 to 2"):
        read_samples(tmp_path, GREY)


def test_two_folders_of_one_integer_are_refused(tmp_path):
    for name in ("1", "01"):
        save_grey(tmp_path / name / "a.png", 0)
    with pytest.raises(DataError, match="are both class 1"):
        read_samples(tmp_path, GREY)


def test_hidden_files_and_junk_are_ignored(tmp_path):
    for name in "abc":
        save_grey(tmp_path / name / "1.png", 0)
    (tmp_path / ".git").mkdir()
    (tmp_path / "__MACOSX").mkdir()
    junk = (".DS_Store", "README", "README.md", "labels.csv", "notes.txt", "config.json")
    for name in (*junk, "a/.DS_Store", "a/Thumbs.db", "a/._1.png", "a/about.txt"):
        (tmp_path / name).write_bytes(b"junk")
    assert len(read_samples(tmp_path, GREY)) == 3


@pytest.mark.parametrize(
    ("stray", "message"),
    [
        ("a/model.onnx", "a/model.onnx: not an image"),
        ("a/anim.gif", "a/anim.gif: not an image"),
        ("weights.bin", "weights.bin: does not belong beside images"),
        ("loose.png", "loose.png: an image outside the class folders"),
    ],
)
def test_files_that_do_not_belong_are_named(tmp_path, stray, message):
    for name in "abc":
        save_grey(tmp_path / name / "1.png", 0)
    (tmp_path / stray).write_bytes(b"x")
    with pytest.raises(DataError, match=message):
        read_samples(tmp_path, GREY)


def test_folder_inside_a_class_folder_is_refused(tmp_path):
    for name in "abc":
        save_grey(tmp_path / name / "deeper" / "1.png", 0)
    with pytest.raises(DataError, match="a/deeper: a folder inside a class folder"):
        read_samples(tmp_path, GREY)


def test_links_are_followed_and_broken_ones_named(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    for value, name in enumerate("abc"):
        save_grey(tmp_path / "store" / name / "1.png", value)
        (root / name).symlink_to(tmp_path / "store" / name)
    assert labels_and_values(read_samples(root, GREY, RAW)) == [(0, 0), (1, 1), (2, 2)]
    (tmp_path / "store" / "a" / "2.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"a/2\.png: a broken link"):
        read_samples(root, GREY)


def test_empty_folders_and_directories(tmp_path):
    with pytest.raises(DataError, match=r"neither images, in folders per class, nor one \.npz"):
        read_samples(tmp_path, GREY)
    for name in "abc":
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=r"hold no images \(\.bmp, \.jpeg"):
        read_samples(tmp_path, GREY)


def test_damaged_image_is_named(tmp_path):
    for name in "abc":
        save_grey(tmp_path / name / "1.png", 0)
    (tmp_path / "b" / "2.png").write_bytes(b"not a picture")
    readable = r"b/2\.png: not a readable PNG, JPEG, BMP or WebP image"
    with pytest.raises(DataError, match=f"{readable}: what it begins with is none of them"):
        read_samples(tmp_path, GREY)
    (tmp_path / "b" / "2.png").write_bytes(b"")
    with pytest.raises(DataError, match=f"{readable}: it is empty"):
        read_samples(tmp_path, GREY)


def test_sizes_and_colours_follow_the_model(tmp_path):
    for name in "abc":
        save_grey(tmp_path / name / "1.png", 100, size=(9, 7))
    samples = read_samples(tmp_path, interface(4, 4, 3, dtype=np.float16), RAW)
    assert samples.x.shape == (3, 4, 4, 3)
    assert samples.x.dtype == np.float16
    assert (samples.x == 100).all()


def test_different_sizes_need_a_fixed_one(tmp_path):
    for size, name in zip([(4, 4), (4, 4), (5, 4)], "abc", strict=True):
        save_grey(tmp_path / name / "1.png", 0, size)
    with pytest.raises(DataError, match=r"c/1\.png: 5x4 pixels, but .*a/1\.png has 4x4"):
        read_samples(tmp_path, interface(1, None, None))


def test_dropped_transparency_is_noted(tmp_path):
    for name in "abc":
        save_grey(tmp_path / name / "1.png", 0)
    Image.new("LA", (4, 4), (50, 0)).save(tmp_path / "b" / "2.png")
    samples = read_samples(tmp_path, GREY, RAW)
    (warning,) = samples.warnings
    assert warning.startswith("transparency dropped in 1 of 4 images, the first is b/2.png; ")
    assert samples.x[2].max() == 50


def test_unreadable_directory_is_named(tmp_path, monkeypatch):
    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    with pytest.raises(DataError, match="cannot be listed: Permission denied"):
        read_samples(tmp_path, GREY)


def test_folders_cannot_be_a_triggered_set(tmp_path):
    save_grey(tmp_path / "0" / "1.png", 0)
    with pytest.raises(DataError, match=r"a triggered set is an \.npz"):
        read_samples(tmp_path, GREY, triggered=True)


@pytest.mark.parametrize("after", [0, 1, 5])
def test_a_folder_that_vanishes_while_it_is_read(tmp_path, monkeypatch, after):
    for name in ("a", "b", "c"):
        for index in range(2):
            save_grey(tmp_path / "clean" / name / f"{index}.png", index)
    real, opened = Image.open, []

    def vanishing(path, **options):
        if len(opened) == after:
            shutil.rmtree(tmp_path / "clean")
        opened.append(path)
        return real(path, **options)

    monkeypatch.setattr(Image, "open", vanishing)
    with pytest.raises(DataError, match=r"clean/./.\.png: cannot be read: No such file"):
        read_samples(tmp_path / "clean", GREY, RAW)

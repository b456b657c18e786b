"""What people really hand over as class folders, and what they are told to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from data_helpers import interface, save_grey

from mmbm_onnx.data import Preprocessing, read_samples
from mmbm_onnx.errors import DataError

RAW = Preprocessing(scale=1.0)


def tree(root: Path, *names: str) -> Path:
    """Images, folders (names that end with a slash) and other files."""
    for number, name in enumerate(names):
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        elif name.endswith(".png"):
            save_grey(path, number)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"?")
    return root


def read(root: Path, classes: int):
    return read_samples(root, interface(1, 4, 4, classes=classes), RAW)


def refusal(root: Path, classes: int) -> str:
    with pytest.raises(DataError) as caught:
        read(root, classes)
    return str(caught.value)


@pytest.mark.parametrize("classes", [2, 3])
def test_parts_of_a_data_set_are_no_classes(tmp_path, classes) -> None:
    names = [f"{part}/{name}/1.png" for part in ("train", "val") for name in ("a", "b", "c")]
    text = refusal(tree(tmp_path, *names), classes)
    assert "'train', 'val' are parts of a data set, not a class" in text
    assert text.endswith(f"give one part, such as {tmp_path / 'train'}")


def test_classes_may_be_called_so(tmp_path) -> None:
    samples = read(tree(tmp_path, "test/1.png", "train/1.png"), 2)
    assert samples.class_names == ("test", "train")


@pytest.mark.parametrize("classes", [2, 3, 4])
def test_folders_of_class_folders_are_a_level_too_much(tmp_path, classes) -> None:
    names = [f"held/{name}/1.png" for name in ("a", "b", "c")] + ["clean/a/1.png", "clean/b/1.png"]
    text = refusal(tree(tmp_path, *names), classes)
    assert "'clean', 'held' hold folders and no images, so they are no classes" in text
    likely = {2: "clean", 3: "held", 4: "clean"}[classes]
    assert text.endswith(f"a level too much; give one, such as {tmp_path / likely}")


def test_a_folder_around_the_images_of_each_class_is_no_such_level(tmp_path) -> None:
    text = refusal(tree(tmp_path, "a/images/1.png", "b/images/1.png"), 2)
    assert "a/images: a folder inside a class folder; expected images only, move its images" in text
    assert "move away what is no class" in refusal(tree(tmp_path, "c/images/1.png", "d/1.png"), 2)


def test_a_folder_around_the_classes_is_told(tmp_path) -> None:
    text = refusal(tree(tmp_path, "images/a/1.png", "images/b/1.png", "__MACOSX/x"), 2)
    assert text.endswith(
        f"its only folder holds folders itself; give {tmp_path / 'images'} instead"
    )


def test_a_class_instead_of_all_is_told(tmp_path) -> None:
    tree(tmp_path, "a/1.png", "b/1.png")
    assert refusal(tmp_path / "a", 2).endswith(f", as many as classes: give {tmp_path.resolve()}")


def test_an_image_beside_class_folders_is_to_be_moved(tmp_path) -> None:
    tree(tmp_path, "1.png", "a/1.png")
    assert refusal(tmp_path, 2).endswith("; move it into one of them")


@pytest.mark.parametrize(
    ("names", "classes", "advice"),
    [
        (("cat/1.png", "Cat/1.png", "dog/1.png"), 2, "'Cat' and 'cat' may be one class: merge"),
        (("truck/1.png", "trucks/1.png", "ant/1.png"), 2, "'truck' and 'trucks' may be one class"),
        (("polar bear/1.png", "polar_bear/1.png", "a/1.png"), 2, "'polar bear' and 'polar_bear'"),
        (("a/1.png", "b/1.png", "tmp/"), 2, "no images are in 'tmp': move away what is no class"),
        (("a/1.png", "b/1.png", "c/1.png"), 2, "move away what is no class of 'a', 'b', 'c'"),
        (("class11/1.png", "class12/1.png", "class13/1.png"), 2, "move away what is no class of"),
        (("0/1.png", "1/1.png", "rest/1.png"), 2, "all names but 'rest' are class indices"),
        (("a/1.png", "b/1.png"), 3, "add empty folders for missing classes; or name each folder"),
    ],
)
def test_another_number_of_folders_is_explained(tmp_path, names, classes, advice) -> None:
    text = refusal(tree(tmp_path, *names), classes)
    assert f"{len(names)} class folder" in text
    assert f"; {advice}" in text


def test_one_folder_around_all_images_is_told_with_both_ways_out(tmp_path) -> None:
    text = refusal(tree(tmp_path, "img/1.png", "img/2.png"), 3)
    advice = f"give {tmp_path / 'img'} to take its images without labels, or sort them into one"
    assert f"1 class folders for a model of 3 classes; {advice} folder per class; or name" in text
    assert read(tmp_path / "img", 3).y is None


def test_counting_from_one_is_told(tmp_path) -> None:
    text = refusal(tree(tmp_path, "1/1.png", "2/1.png", "3/1.png"), 3)
    assert "outside the model's 0 to 2; folders are numbered from 1, classes from 0" in text
    assert refusal(tree(tmp_path, "9/1.png"), 3).endswith("class indices, counted from 0")


@pytest.mark.parametrize(
    ("names", "doubt"),
    [
        (("class1", "class2", "class10"), "'class10' is class 1, 'class2' is class 2"),
        (("1_cat", "2_dog", "10_ant"), "'10_ant' is class 0, '1_cat' is class 1"),
        (("class01", "class02", "class10"), None),
        (("0_cat", "1_dog", "2_ant"), None),
        (("vgg16", "resnet18", "resnet9"), None),
    ],
)
def test_numbers_in_names_are_no_indices(tmp_path, names, doubt) -> None:
    samples = read(tree(tmp_path, *(f"{name}/1.png" for name in names)), 3)
    assert samples.class_names == tuple(sorted(names))
    if doubt is None:
        assert samples.warnings == ()
    else:
        (warning,) = samples.warnings
        assert doubt in warning
        assert "name folders by class index" in warning


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("a/1.tiff", "convert it to PNG"),
        ("a/1.heic", "convert it to PNG"),
        ("a/1.npy", "arrays go into one .npz with x and y"),
        ("a/1.bin", "remove it"),
        ("images.zip", "unpack it, and move it away"),
        ("x.npy", "arrays go into one .npz with x and y"),
    ],
)
def test_files_that_do_not_belong_come_with_the_way_out(tmp_path, name, advice) -> None:
    text = refusal(tree(tmp_path, "a/0.png", "b/0.png", name), 2)
    assert str(tmp_path / name) in text
    assert text.split("; ")[-1].startswith(advice)


def test_what_desktops_leave_is_passed_over(tmp_path) -> None:
    junk = ("Thumbs.db", "a/Thumbs.db", ".DS_Store", "a/._0.png", "desktop.ini", "a/ehthumbs.db")
    folders = ("__MACOSX/x", "@eaDir/x", "$RECYCLE.BIN/x", "System Volume Information/x")
    samples = read(tree(tmp_path, "a/0.png", "b/0.png", *junk, *folders), 2)
    assert len(samples) == 2

from __future__ import annotations

import numpy as np
import pytest
from data_helpers import interface

from mmbm_onnx.data import check_accuracy, check_decided, check_samples
from mmbm_onnx.errors import DataError
from mmbm_onnx.types import Samples

MODEL = interface(2, 3, classes=4)


def samples(n: int = 40, y=None, **fields) -> Samples:
    x = np.random.default_rng(0).normal(size=(n, 2, 3)).astype(np.float32)
    y = np.arange(n) % 4 if y is None else np.asarray(y)
    return Samples(**{"x": x, "y": y, "source": "set", **fields})


def test_good_samples_pass_without_a_word():
    assert check_samples(samples(), MODEL) == []


def test_empty_set():
    with pytest.raises(DataError, match="set: no samples"):
        check_samples(samples(0), MODEL)


def test_single_class():
    with pytest.raises(DataError, match=r"set: all samples are of one class \(2\)"):
        check_samples(samples(y=np.full(40, 2)), MODEL)


def test_too_few_in_all():
    with pytest.raises(DataError, match="set: 19 samples are too few, at least 20"):
        check_samples(samples(19), MODEL)
    assert check_samples(samples(20), MODEL) == []


def test_too_few_per_class():
    wide = interface(2, 3, classes=30)
    with pytest.raises(DataError, match="40 samples for 21 classes are too few, at least 2 per"):
        check_samples(samples(y=np.arange(40) % 21), wide)
    check_samples(samples(y=np.arange(40) % 20), wide)


@pytest.mark.parametrize("label", [4, -1])
def test_labels_and_targets_outside_the_outputs(label):
    bad = np.arange(40) % 4
    bad[7] = label
    with pytest.raises(DataError, match=f"label {label} of sample 7 is outside .* 0 to 3"):
        check_samples(samples(y=bad), MODEL)
    with pytest.raises(DataError, match=f"target {label} of sample 7 is outside"):
        check_samples(samples(target=bad), MODEL)


@pytest.mark.parametrize("y", [np.zeros(40, np.int32), np.zeros((40, 1), np.int64), np.arange(3)])
def test_labels_of_another_type(y):
    with pytest.raises(DataError, match=r"set: labels are .*, expected int64 \(40,\)"):
        check_samples(samples(y=y), MODEL)


def test_wrong_shape_and_dtype():
    with pytest.raises(DataError, match=r"shape \(40, 6\), the model takes \(n, 2, 3\)"):
        check_samples(samples(x=np.zeros((40, 6), np.float32)), MODEL)
    with pytest.raises(DataError, match=r"the model takes \(n, 2, any\)"):
        check_samples(samples(x=np.zeros((40, 3, 3), np.float32)), interface(2, None, classes=4))
    with pytest.raises(DataError, match="float64, the model takes float32"):
        check_samples(samples(x=np.zeros((40, 2, 3))), MODEL)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 599])
def test_values_that_are_not_finite(value, at):
    bad = samples(600)
    bad.x[at, 1, 2] = value
    with pytest.raises(DataError, match=f"set: sample {at} has values that are not finite"):
        check_samples(bad, MODEL)


def test_copies_are_warned_of():
    copied = samples()
    copied.x[10:13] = copied.x[0]
    (warning,) = check_samples(copied, MODEL)
    assert "3 of 40 samples are copies" in warning


def test_hardly_anything_but_one_sample():
    copied = samples()
    copied.x[3:] = copied.x[0]
    with pytest.raises(DataError, match="set: 38 of 40 samples are the same"):
        check_samples(copied, MODEL)


def test_missing_classes_and_labels_are_warned_of():
    assert check_samples(samples(y=np.arange(40) % 2), MODEL) == [
        "set: 2 of 4 classes have no sample (2, 3); give some of each, else nearly all inputs of "
        "these are flagged"
    ]
    unlabelled = Samples(samples().x, None, source="set")
    (warning,) = check_samples(unlabelled, MODEL)
    assert "no labels" in warning


def test_sets_that_are_only_measured_on_may_be_small_and_alike():
    few = samples(2, y=[1, 1])
    few.x[1] = few.x[0]
    assert check_samples(few, MODEL, for_learning=False) == []
    few.x[1] = np.nan
    with pytest.raises(DataError, match="not finite"):
        check_samples(few, MODEL, for_learning=False)


Y = np.arange(80) % 4


def deciding(classes) -> np.ndarray:
    return np.eye(4, dtype=np.float32)[classes]


def correct_on(share: float) -> np.ndarray:
    """Logits right on about ``share`` of every class, otherwise one class off."""
    right = np.arange(80) // 4 < 20 * share
    return deciding(np.where(right, Y, (Y + np.arange(80) // 4 % 3 + 1) % 4))


def test_plausible_accuracy_is_returned():
    check = check_accuracy(correct_on(0.9), Y, MODEL)
    assert check.accuracy == 0.9
    assert check.warnings == []


def test_low_accuracy_is_warned_of():
    check = check_accuracy(correct_on(0.5), Y, MODEL, source="set")
    assert check.accuracy == 0.5
    assert check.warnings == [
        "set: the model's accuracy on it is only 50.0%; check preprocessing and labels"
    ]


def test_accuracy_near_chance_is_implausible():
    x = np.array([0.0, 255.0])
    with pytest.raises(DataError, match=r"accuracy of 40\.0% .* implausible") as caught:
        check_accuracy(correct_on(0.4), Y, MODEL, source="set", x=x)
    assert "(chance is 25.0%); wrong preprocessing (scale, mean, std, channel order)" in str(
        caught.value
    )
    assert "input values range from 0 to 255" in str(caught.value)
    assert check_accuracy(correct_on(0.45), Y, MODEL).accuracy == 0.45


def test_chance_is_that_of_the_most_common_label():
    y = np.where(np.arange(80) < 64, 0, Y)
    with pytest.raises(DataError, match=r"chance is 85\.0%"):
        check_accuracy(deciding(np.zeros(80, int)), y, MODEL)


def test_constant_decisions_mean_preprocessing():
    with pytest.raises(DataError, match="nearly every decision is class 2: wrong preprocessing"):
        check_accuracy(deciding(np.full(80, 2)), Y, MODEL)


def test_permuted_labels_are_told_with_their_folders():
    permuted = np.array([1, 0, 3, 2])[Y]
    with pytest.raises(DataError, match="the labels are in another order") as caught:
        check_accuracy(deciding(permuted), Y, MODEL, class_names=("ant", "bee", "cat", "dog"))
    assert "folder 'ant' (index 0) -> output 1, folder 'bee' (index 1) -> output 0" in str(
        caught.value
    )


def test_permuted_labels_without_names():
    shifted = interface(2, 3, classes=9)
    y = np.arange(80) % 8
    with pytest.raises(DataError, match=r"label 0 -> output 1, .* label 3 -> output 4, \.\.\.;"):
        check_accuracy(np.eye(9)[y + 1], y, shifted)


def decided_by(counts) -> tuple[np.ndarray, np.ndarray]:
    """Logits and labels with that confusion matrix, rows being labels."""
    counts = np.asarray(counts)
    pairs = [(a, b) for a, b in np.ndindex(counts.shape) for _ in range(counts[a, b])]
    y, predicted = np.array(pairs).T
    return np.eye(len(counts), dtype=np.float32)[predicted], y


def exchanged(classes: int, order: dict[int, int], right: int = 18, total: int = 20) -> np.ndarray:
    """A good model's confusion matrix; ``order`` is label to true output."""
    counts = np.zeros((classes, classes), int)
    for label in range(classes):
        counts[label, order.get(label, label)] += right
        counts[label, (order.get(label, label) + 1) % classes] += total - right
    return counts


@pytest.mark.parametrize(
    ("classes", "order"),
    [
        (5, {1: 3, 3: 1}),
        (10, {1: 3, 3: 1}),
        (43, {1: 3, 3: 1}),
        (10, {0: 4, 4: 7, 7: 0}),
        (10, {2: 5, 5: 2, 6: 9, 9: 6}),
    ],
)
@pytest.mark.parametrize("minimum", [None, 0.99])
def test_a_few_exchanged_labels_stop_a_plausible_accuracy(classes, order, minimum):
    logits, y = decided_by(exchanged(classes, order))
    model = interface(2, 3, classes=classes)
    names = [f"kind{index}" for index in range(classes)]
    with pytest.raises(DataError, match="the labels are in another order") as caught:
        check_accuracy(logits, y, model, class_names=names, source="set", minimum=minimum)
    text = str(caught.value)
    assert text.startswith("set: the model's accuracy on it is ")
    assert "implausible" not in text and "90.0% with some labels exchanged" in text
    for label, output in order.items():
        assert f"folder 'kind{label}' (index {label}) -> output {output}" in text
    assert text.endswith("rename the class folders to the outputs' indices, or reorder y")


def test_labels_that_are_one_off_in_part_are_told():
    counts = exchanged(9, {4: 5, 5: 6, 6: 7, 7: 8})
    counts[8] = 0
    with pytest.raises(DataError, match=r"label 4 -> output 5, .* label 7 -> output 8;"):
        check_accuracy(*decided_by(counts), interface(2, 3, classes=9))


@pytest.mark.parametrize("wrong", [11, 19])
def test_classes_confused_in_one_direction_are_not_called_exchanged(wrong):
    counts = exchanged(5, {}, right=20)
    counts[1, 1], counts[1, 3] = 20 - wrong, wrong
    check = check_accuracy(*decided_by(counts), interface(2, 3, classes=5), source="set")
    told = "set: class 1: only 1 of 20 samples are decided as labelled; check its labels"
    assert check.warnings == ([told] if wrong == 19 else [])


def test_a_chain_of_confusions_is_not_called_exchanged():
    counts = exchanged(5, {}, right=20)
    counts[0, 0], counts[0, 1] = 6, 14
    counts[1, 1], counts[1, 2] = 6, 14
    assert check_accuracy(*decided_by(counts), interface(2, 3, classes=5)).warnings == []


def test_classes_confused_both_ways_less_than_half_are_not_called_exchanged():
    counts = exchanged(5, {}, right=20)
    for a, b in ((1, 3), (3, 1)):
        counts[a, a], counts[a, b] = 10, 10
    assert check_accuracy(*decided_by(counts), interface(2, 3, classes=5)).warnings == []


def test_a_class_confused_with_one_that_has_no_samples_is_warned_of():
    counts = exchanged(5, {}, right=20)
    counts[3] = 0
    counts[1, 1], counts[1, 3] = 0, 20
    names = ["ant", "bee", "cat", "dog", "emu"]
    check = check_accuracy(
        *decided_by(counts), interface(2, 3, classes=5), class_names=names, source="set"
    )
    assert check.warnings == [
        "set: class 'bee': only 0 of 20 samples are decided as labelled; check its labels"
    ]


def test_many_weak_classes_are_counted():
    counts = exchanged(20, {}, right=20)
    for label in range(1, 9):
        counts[label] = 0
        counts[label, 0] = 20
    check = check_accuracy(*decided_by(counts), interface(2, 3, classes=20), source="set")
    assert len(check.warnings) == 6
    assert check.warnings[-1] == "set: so are less than 20% of 3 more classes"


def test_required_minimum():
    with pytest.raises(DataError, match=r"accuracy of 80\.0% on it is below the required 90\.0%"):
        check_accuracy(correct_on(0.8), Y, MODEL, minimum=0.9)
    assert check_accuracy(correct_on(0.9), Y, MODEL, minimum=0.9).accuracy == 0.9


def test_logits_that_cannot_be_judged():
    with pytest.raises(DataError, match=r"logits of shape \(80, 4\) for 3 labels"):
        check_accuracy(correct_on(1), Y[:3], MODEL)
    with pytest.raises(DataError, match="logits are not finite"):
        check_accuracy(correct_on(1) * np.nan, Y, MODEL)
    with pytest.raises(DataError, match="labels outside the model's classes 0 to 3"):
        check_accuracy(correct_on(1), Y + 1, MODEL)


def test_one_class_is_judged_by_accuracy_alone():
    y = np.full(80, 3)

    def decided(right: int) -> np.ndarray:
        return deciding(np.where(np.arange(80) < right, 3, np.arange(80) % 3))

    check = check_accuracy(decided(48), y, MODEL, source="set")
    assert check.accuracy == 0.6
    assert check.warnings == [
        "set: all samples are of one class (3); a model that always answers so would pass, give "
        "samples of other classes too"
    ]
    with pytest.raises(DataError, match=r"accuracy of 58\.8% .* implausible"):
        check_accuracy(decided(47), y, MODEL)


def test_one_class_of_two_needs_more_than_chance():
    two = interface(2, 3, classes=2)
    y = np.zeros(80, int)
    logits = np.eye(2)[(np.arange(80) >= 49).astype(int)]
    with pytest.raises(DataError, match="implausible"):
        check_accuracy(logits, y, two)


def test_without_labels_the_models_decisions_tell_which_classes_have_no_sample():
    unlabelled = Samples(samples().x, source="set")
    (line,) = check_decided(unlabelled, MODEL, np.arange(40) % 2)
    assert line.startswith(
        "set: 2 of 4 classes have no sample (2, 3), by the model's own decisions"
    )
    assert check_decided(unlabelled, MODEL, np.arange(40) % 4) == []
    assert check_decided(samples(), MODEL, np.zeros(40, np.int64)) == []

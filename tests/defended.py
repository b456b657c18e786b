"""What verification must find of a model with a planted backdoor that was hardened."""

from __future__ import annotations

from mmbm_onnx import VerifyResult


def assert_defended(checked: VerifyResult) -> None:
    """All gates hold; the attack works on the original alone, and nothing clean is lost but what
    the detector may flag."""
    assert checked.passed, [gate for gate in checked.gates if not gate.passed]
    assert checked.measurements.original.attack_success_rate == 1
    measured = checked.measurements
    for figures, least in ((measured.hardened, 1), (measured.detector, 0.99)):
        assert figures is not None
        assert figures.attack_success_rate is not None
        assert figures.attack_success_rate < 0.1
        assert figures.accuracy is not None
        assert figures.accuracy >= least

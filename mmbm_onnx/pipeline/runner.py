"""ONNX Runtime with the same settings for every graph of a hardening."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from mmbm_onnx.evaluation.predictions import Predictions, Verdicts, predict, predict_detector
from mmbm_onnx.graph.outputs import with_outputs
from mmbm_onnx.runtime.batches import run_logits
from mmbm_onnx.runtime.sessions import Session
from mmbm_onnx.types import Interface

_TRIAL = 5  # samples that tell an output's batch axis from any other
_SAME = 1e-3  # of the largest value


class Runner:
    """Runs graphs with the original's interface.

    Args:
        interface: How they are fed and read.
        provider, threads: Of ONNX Runtime.
        batch_size: Samples at a time where the model leaves it open.
    """

    def __init__(
        self, interface: Interface, provider: str | None, threads: int | None, batch_size: int
    ) -> None:
        self.interface = interface
        self.batch_size = batch_size
        self.provider = provider
        self.threads = threads

    def session(self, proto: onnx.ModelProto) -> Session:
        """A session of a graph."""
        return Session(proto, provider=self.provider, threads=self.threads)

    def logits(self, proto: onnx.ModelProto, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Logits of a classifier, ``(n, classes)``."""
        session = self.session(with_outputs(proto, [self.interface.logits]))
        found = run_logits(session, self.interface, x, self.batch_size)
        logits: npt.NDArray[np.float32] = np.asarray(found).astype(np.float32)
        return logits

    def answers(self, proto: onnx.ModelProto, x: npt.NDArray[Any]) -> Predictions:
        """Answers of a classifier."""
        return predict(self.session(proto), self.interface, x, batch_size=self.batch_size)

    def verdicts(self, proto: onnx.ModelProto, x: npt.NDArray[Any]) -> Verdicts:
        """Answers of a detector."""
        return predict_detector(self.session(proto), self.interface, x, batch_size=self.batch_size)

    def probe(
        self, proto: onnx.ModelProto, outputs: Mapping[str, str], x: npt.NDArray[Any]
    ) -> tuple[Verdicts, dict[str, npt.NDArray[np.float32]]]:
        """Answers of a probe and its summaries.

        Args:
            proto: See ``rewriting.detector.build_probe``.
            outputs: Its outputs with summaries, by site.
            x: Samples.

        Returns:
            Answers, and by site ``(views, n, channels)``, without sites whose first axis turns out
            not to run over the samples.
        """
        session = self.session(proto)
        kept = self._per_sample(session, outputs, x)
        verdicts = predict_detector(
            session,
            self.interface,
            x,
            outputs=list(kept.values()),
            batch_size=self.batch_size,
        )
        summaries = {site: verdicts.outputs[name] for site, name in kept.items()}
        return verdicts, {site: np.moveaxis(value, 1, 0) for site, value in summaries.items()}

    def _per_sample(
        self, session: Session, outputs: Mapping[str, str], x: npt.NDArray[Any]
    ) -> dict[str, str]:
        """Those of the outputs that have one entry per sample, each of its own sample alone.

        The length of the first axis does not tell: it may be that of a sequence. So the first
        sample is replaced, and the entries of the others must stay.
        """
        names = list(outputs.values())
        if not names:
            return {}
        size = self.interface.batch or _TRIAL
        first = np.resize(x[:size], (size, *x.shape[1:]))
        second = first.copy()
        second[0] = x[-1][..., ::-1] if len(x) > 1 else 0
        before, after = (
            [np.asarray(value) for value in session.run(names, {self.interface.input: trial})]
            for trial in (first, second)
        )
        return {
            site: name
            for (site, name), one, other in zip(outputs.items(), before, after, strict=True)
            if len(one) == size
            and np.allclose(one[1:], other[1:], rtol=_SAME, atol=_SAME * float(np.abs(one).max()))
        }

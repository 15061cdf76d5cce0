"""`Likelihood`: how likely a text is in each way of answering."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.model import Model, Scope
from dps_local.evaluation.way import Shown, Way
from dps_local.scoring.forked_sequences import Text
from dps_local.scoring.held_out import Trial
from dps_local.steering.mixing import Logits

Losses = NDArray[np.float64]  # [n_temperatures], nats per token
Prompts = Mapping[Shown, list[int]]


class Likelihood:
    """Computes the NLL of texts with all logits, by the mechanism of calibration.

    The plausibility mask is left out, as it gives some texts no probability at all. texts: all that will be tried.
    """

    def __init__(self, model: Model, texts: Sequence[Text], scope: Scope, n_threads: int | None = None) -> None:
        self.model, self.trial = model, Trial(model, texts, scope, n_threads)

    def close(self) -> None:
        self.trial.close()

    def losses(self, ways: Sequence[Way], prompts: Prompts, target: list[int]) -> list[Losses]:
        """Return the losses of the tokens `target` in each way, after the prompt that it is shown."""
        found: dict[int, Losses] = {}
        own = {i: way.own_scales(self.model) for i, way in enumerate(ways) if way.shown == "profile"}
        alone = self._alone(ways, prompts, target)
        for full, streams in self.trial.compared(
            Text(prompts["profile"], target), {scales.tobytes(): scales for scales in own.values()}
        ):
            for i, scales in own.items():
                if (key := scales.tobytes()) in streams:
                    own_stream = alone["question"] if ways[i].cad else streams[key]
                    found[i] = self._loss(ways[i], full, own_stream, target)
        for i, way in enumerate(ways):
            if way.shown != "profile":
                found[i] = self._loss(way, alone[way.shown], alone[way.shown], target)
        return [found[i] for i in range(len(ways))]

    def _alone(self, ways: Sequence[Way], prompts: Prompts, target: list[int]) -> dict[Shown, Logits]:
        """Return the plain model's logits [n_target, n_vocab] after each other prompt that a way needs."""
        needed = {way.shown for way in ways} - {"profile"}
        if any(way.cad for way in ways):
            needed.add("question")
        return {shown: self.trial.plain(Text(prompts[shown], target)) for shown in needed}

    def _loss(self, way: Way, full: Logits, own: Logits, target: list[int]) -> Losses:
        return self.trial.mean_losses(way.mix, full, own, target)

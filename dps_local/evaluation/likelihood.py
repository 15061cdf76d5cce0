"""`Likelihood`: how likely a text is under each treatment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dps_local.engine.model import Model, Scope
from dps_local.evaluation.treatment import UNSTEERED, PromptKind, Treatment
from dps_local.scoring.forked_sequences import ScoredText
from dps_local.scoring.held_out_losses import HeldOutLosses
from dps_local.steering.mixing import Logits

Losses = NDArray[np.float64]  # [n_target, n_temperatures], nats
Prompts = Mapping[PromptKind, list[int]]


class Likelihood:
    """Computes the NLL of texts with all logits, by the mechanism of calibration.

    The plausibility mask is left out, as it gives some texts no probability at all. texts: all that will be tried.
    """

    def __init__(self, model: Model, texts: Sequence[ScoredText], scope: Scope, n_threads: int | None = None) -> None:
        self.model, self.held_out_losses = model, HeldOutLosses(model, texts, scope, n_threads)

    def close(self) -> None:
        self.held_out_losses.close()

    def losses(self, treatments: Sequence[Treatment], prompts: Prompts, target: list[int]) -> list[Losses]:
        """Return the losses of the tokens `target` under each treatment, after the prompt that it shows."""
        losses: dict[int, Losses] = {}
        own_scales = {
            i: treatment.own_scales(self.model)
            for i, treatment in enumerate(treatments)
            if treatment.prompt_kind == "profile" and treatment.vectors is None
        }
        other_prompts = self._after_other_prompts(treatments, prompts, target)
        for full, streams in self.held_out_losses.compared(
            ScoredText(prompts["profile"], target), {scales.tobytes(): scales for scales in own_scales.values()}
        ):
            for i, scales in own_scales.items():
                if (key := scales.tobytes()) in streams:
                    own_stream = other_prompts["question"] if treatments[i].cad else streams[key]
                    losses[i] = self._loss(treatments[i], full, own_stream, target)
        for i, treatment in enumerate(treatments):
            if i not in own_scales:
                kind = treatment.prompt_kind
                logits = other_prompts[kind] if kind != "profile" else self._moved(treatment, prompts[kind], target)
                losses[i] = self._loss(treatment, logits, logits, target)
        return [losses[i] for i in range(len(treatments))]

    def plain_loss(self, prompts: Prompts, target: list[int]) -> float:
        """Return the mean NLL of the tokens `target` in the plain model, nats per token."""
        return float(self.losses([UNSTEERED], prompts, target)[0][:, 0].mean())

    def _after_other_prompts(
        self, treatments: Sequence[Treatment], prompts: Prompts, target: list[int]
    ) -> dict[PromptKind, Logits]:
        """Return the plain model's logits [n_target, n_vocab] after each other prompt that a treatment needs."""
        needed = {treatment.prompt_kind for treatment in treatments} - {"profile"}
        if any(treatment.cad for treatment in treatments):
            needed.add("question")
        return {kind: self.held_out_losses.plain(ScoredText(prompts[kind], target)) for kind in needed}

    def _moved(self, treatment: Treatment, prompt: list[int], target: list[int]) -> Logits:
        """Return the logits [n_target, n_vocab] with layers moved from the last token of the prompt on."""
        text, sequences = ScoredText(prompt, target), self.held_out_losses.sequences
        sequences.read(text)
        with sequences.context.control_vector(treatment.vectors):
            return self.held_out_losses.plain(text)

    def _loss(self, treatment: Treatment, full: Logits, own: Logits, target: list[int]) -> Losses:
        if treatment.cache:
            full = full + treatment.cache.biases(target)
        return self.held_out_losses.token_losses(treatment.mix, full, own, target)

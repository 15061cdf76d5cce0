"""The arithmetic of steering: functions from logits to logits, in numpy alone.

f are the logits with all heads, m those with the chosen heads muted. DPS decoding (arXiv 2604.22345) samples
from (1 + γ)·f - γ·m, here under the plausibility mask of contrastive decoding (Li et al. 2022, arXiv 2210.15097).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dps_local.errors import SettingsError

LARGEST = 1000.0  # of γ; from about 1e36 on, numbers of single precision overflow
Logits = NDArray[np.float32]  # [n_vocab]
Space = Literal["logits", "logprobs"]


@dataclass(frozen=True)
class Gamma:
    """The strength of steering: a number, or the entropy of softmax(f) at each step, as the paper's code takes it.

    normalised: divide the entropy by log(n_vocab), so that it lies in [0, 1]. cap: never above it.
    Raises SettingsError for a number too large to compute with.
    """

    value: float = 0.0
    entropy: bool = False
    normalised: bool = False
    cap: float = math.inf

    def __post_init__(self) -> None:
        if not abs(self.value) <= LARGEST:
            raise SettingsError(f"γ is {self.value:g}: it goes from -{LARGEST:g} to {LARGEST:g}")

    def __call__(self, full: Logits) -> float:
        """Return γ for one step with the logits `full`."""
        if not self.entropy:
            return self.value
        gamma = entropy(full) / (math.log(full.size) if self.normalised else 1.0)
        return min(gamma, self.cap)

    @property
    def off(self) -> bool:
        """Whether nothing is steered: the second stream is not needed."""
        return not self.entropy and self.value == 0.0

    def __str__(self) -> str:
        if not self.entropy:
            return _shortest(self.value)
        parts = [
            "entropy",
            *["normalised"] * self.normalised,
            *[f"cap={_shortest(self.cap)}"] * math.isfinite(self.cap),
        ]
        return ":".join(parts)

    @classmethod
    def parse(cls, text: str) -> Gamma:
        """Read a number, or entropy[:normalised][:cap=X]."""
        head, *options = text.strip().split(":")
        if head != "entropy":
            if options or not math.isfinite(value := _number(head)):
                raise SettingsError(f"γ is {text!r}: expected a number or entropy[:normalised][:cap=X]")
            return cls(value)
        normalised, cap = False, math.inf
        for option in options:
            if option == "normalised":
                normalised = True
            elif option.startswith("cap=") and _number(option[4:]) > 0:
                cap = _number(option[4:])
            else:
                raise SettingsError(f"γ option {option!r}: expected normalised or cap=X with X above 0")
        return cls(entropy=True, normalised=normalised, cap=cap)


def _shortest(number: float) -> str:
    """Return the text of a number that reads back as the same number."""
    return f"{number:g}" if float(f"{number:g}") == number else repr(number)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def log_softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return log-probabilities (nats) over the last axis, in double precision."""
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def probabilities(logits: Logits) -> Logits:
    """Return softmax(logits); single precision, as it is taken at every token of an answer."""
    p = np.exp(logits - logits.max())
    return np.asarray(p / p.sum())


def nll(logits: Logits, token: int) -> float:
    """Return -log softmax(logits)[token] in nats; single precision, one row at a time, as it is taken of millions."""
    shifted = logits - logits.max()
    return float(np.log(np.exp(shifted).sum()) - shifted[token])


def entropy(logits: Logits) -> float:
    """Return the entropy of softmax(logits) in nats."""
    logprobs = log_softmax(logits)
    return float(-(np.exp(logprobs) * np.where(np.isneginf(logprobs), 0.0, logprobs)).sum())


def plausible(full: Logits, beta: float) -> NDArray[np.bool_]:
    """Return where softmax(f) ≥ β · max softmax(f); β = 0 keeps every token."""
    if beta <= 0:
        return np.ones(full.shape, np.bool_)
    return np.asarray(full >= full.max() + math.log(beta))


def mix(full: Logits, muted: Logits, gamma: float, beta: float = 0.1, space: Space = "logits") -> Logits:
    """Return f + γ·(f - m), with -inf where the plausibility mask β rules a token out.

    space: "logits" takes f and m as they are, "logprobs" after log-softmax; both give the same distribution, as
    softmax does not see a shift. With m equal to f the result is f, bit for bit.
    """
    f, m = (full, muted) if space == "logits" else (log_softmax(full), log_softmax(muted))
    mixed = (f + gamma * (f - m)).astype(np.float32)
    return np.where(plausible(full, beta), mixed, np.float32(-np.inf))

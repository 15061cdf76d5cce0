"""`Arm`: one way of answering that is compared with others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from dps_local.scoring.calibration import GAMMAS, STEPS
from dps_local.steering.mixing import Gamma

Method = Literal[
    "none",
    "profile",
    "cad",
    "random",
    "pcs",
    "gain",
    "contrast",
    "cluster-hard",
    "cluster-soft",
    "amplify",
    "amplify-positive",
    "calibrated",
]
METHODS: tuple[Method, ...] = get_args(Method)
MEANINGS: dict[Method, str] = {
    "none": "the question alone",
    "profile": "the profile in the prompt",
    "cad": "contrast with the question alone (CAD)",
    "random": "contrast with random heads muted",
    "pcs": "contrast with the heads of highest PCS muted",
    "gain": "contrast with the heads of highest gain muted",
    "contrast": "contrast with the heads whose PCS the profile raises most muted",
    "cluster-hard": "contrast with the heads of the user's cluster muted",
    "cluster-soft": "contrast with the heads of all clusters muted by the user's shares",
    "amplify": "heads scaled by their gain, up and down, in one stream",
    "amplify-positive": "heads of positive gain scaled up, in one stream",
    "calibrated": "mode, heads and γ as chat would choose them",
}
PLAIN: tuple[Method, ...] = ("none", "profile", "calibrated")  # that have no settings of their own
RANKED: tuple[Method, ...] = ("random", "pcs", "gain", "contrast")  # that take the best so many heads
CLUSTERED: tuple[Method, ...] = ("cluster-hard", "cluster-soft")
HEADLESS: tuple[Method, ...] = ("none", "profile", "cad", "random")  # that need no head map
AMPLIFIED: tuple[Method, ...] = ("amplify", "amplify-positive")


@dataclass(frozen=True)
class Arm:
    """A method and its settings; those it does not have are None.

    items: how many profile items are shown, None for as many as in the other arms. seed: of the random heads.
    """

    method: Method
    gamma: Gamma | None = None
    heads: int | None = None
    beta: float | None = None
    items: int | None = None
    seed: int | None = None

    @property
    def seedless(self) -> Arm:
        """Return what random heads of all seeds have in common."""
        return replace(self, seed=None)

    @property
    def settings(self) -> str:
        parts = {"γ": self.gamma, "K": self.heads, "β": self.beta, "items": self.items}
        return ", ".join(f"{name} = {value}" for name, value in parts.items() if value is not None)

    def __str__(self) -> str:
        return f"{self.method} ({self.settings})" if self.settings else self.method

    def as_json(self) -> dict[str, str | float | None]:
        return {
            "method": self.method,
            "gamma": str(self.gamma) if self.gamma else None,
            "heads": self.heads,
            "beta": self.beta,
            "items": self.items,
            "seed": self.seed,
        }

    @classmethod
    def from_json(cls, data: dict[str, str | float | None]) -> Arm:
        gamma = data["gamma"]
        return cls(**(data | {"gamma": None if gamma is None else Gamma.parse(str(gamma))}))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Grid:
    """The settings to try; the first of each are the main ones, and the others change one of them at a time.

    steps: γ of the amplification. items: how many profile items to show to the plain model, beside as many as in the
    other arms. seeds: how many choices of random heads.
    """

    gammas: tuple[Gamma, ...] = (Gamma(GAMMAS[0]),)
    heads: tuple[int, ...] = (8,)
    betas: tuple[float, ...] = (0.1,)
    steps: tuple[Gamma, ...] = (Gamma(STEPS[0]),)
    items: tuple[int, ...] = ()
    seeds: int = 3

    def arms(self, methods: Sequence[Method]) -> list[Arm]:
        return [arm for method in methods for arm in self._arms(method)]

    def _arms(self, method: Method) -> list[Arm]:
        if method == "profile":
            return [Arm(method), *(Arm(method, items=items) for items in self.items)]
        if method in PLAIN:
            return [Arm(method)]
        if method in AMPLIFIED:
            return [Arm(method, gamma) for gamma in self.steps]
        ranked = method in RANKED
        main = Arm(method, self.gammas[0], self.heads[0] if ranked else None, self.betas[0])
        arms = [main]
        arms += [replace(main, gamma=gamma) for gamma in self.gammas[1:]]
        arms += [replace(main, heads=heads) for heads in self.heads[1:] if ranked]
        arms += [replace(main, beta=beta) for beta in self.betas[1:]]
        if method == "random":
            return [replace(arm, seed=seed) for arm in arms for seed in range(self.seeds)]
        return arms

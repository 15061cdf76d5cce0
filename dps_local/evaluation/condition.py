"""`Condition`: a method and its settings, one of those that an experiment compares."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from dps_local.steering.mixing import Gamma

StepMethod = Literal["prior", "prior-own", "own", "another", "prior-contrast"]
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
    StepMethod,
    "style-vector",
    "cache",
]
METHODS: tuple[Method, ...] = get_args(Method)
METHOD_MEANINGS: dict[Method, str] = {
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
    "prior": "all heads scaled by the step of other users’ texts",
    "prior-own": "… of other users’ texts and the user’s own",
    "own": "… of the user’s own texts alone",
    "another": "… of other users’ texts and one other user’s own, in place of the user’s",
    "prior-contrast": "contrast with a stream that goes the step of other users’ texts backwards",
    "style-vector": "no heads: layers moved from the model’s own answers to the user’s (a control vector)",
    "cache": "no heads: the user’s own phrases (n-grams) made likelier than others’",
}
METHODS_WITHOUT_SETTINGS: tuple[Method, ...] = ("none", "profile", "calibrated")
TOP_K_METHODS: tuple[Method, ...] = ("random", "pcs", "gain", "contrast")
CLUSTER_METHODS: tuple[Method, ...] = ("cluster-hard", "cluster-soft")
PEER_METHODS: tuple[Method, ...] = ("cad", "style-vector", "cache")  # others' ways, to compare with
METHODS_WITHOUT_HEAD_MAP: tuple[Method, ...] = ("none", "profile", "random", *PEER_METHODS)
STEP_METHODS: tuple[StepMethod, ...] = get_args(StepMethod)
SPARSE_METHODS: tuple[Method, ...] = ("prior", "prior-contrast")  # tried with few heads, too
AMPLIFY_METHODS: tuple[Method, ...] = ("amplify", "amplify-positive", *STEP_METHODS)  # their γ is a length


@dataclass(frozen=True)
class Condition:
    """A method and its settings; those it does not have are None.

    items: how many profile items are shown, None for as many as in the other conditions. seed: of the random heads.
    """

    method: Method
    gamma: Gamma | None = None
    heads: int | None = None
    beta: float | None = None
    items: int | None = None
    seed: int | None = None

    @property
    def without_seed(self) -> Condition:
        """Return the condition that random heads of all seeds have in common."""
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
    def from_json(cls, data: dict[str, str | float | None]) -> Condition:
        gamma = data["gamma"]
        return cls(**(data | {"gamma": None if gamma is None else Gamma.parse(str(gamma))}))  # type: ignore[arg-type]

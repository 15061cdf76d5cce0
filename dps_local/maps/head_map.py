"""`HeadMap`: scores of attention heads and the chosen ones, as GGUF metadata (`.dps.gguf`, or baked into a model)."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import gguf
import numpy as np
from numpy.typing import NDArray

from dps_local.engine.gguf_file import GGUFFile
from dps_local.engine.identity import Identity
from dps_local.engine.model import Head, Scope
from dps_local.maps import map_file
from dps_local.scoring.calibration import Calibration, Candidate, Mode
from dps_local.scoring.statistics import Ranking, Stability

SCORES = (
    "pcs",
    "pcs_stderr",
    "gain",
    "gain_stderr",
    "variance",
    "contrast",
    "contrast_stderr",
    "pairwise",
    "pairwise_stderr",
    "counts",
    "weights",
)
Scores = NDArray[np.float32]  # [n_layer, n_head_max], NaN where a layer has no such head, or none that can be muted


@dataclass(frozen=True, eq=False)
class HeadMap:
    """What scoring found about each head of one model for one user, and the heads chosen by it.

    Scores are in nats per target token, means over examples with their standard errors (`…_stderr`):
    pcs, with gain as its part that favours this user's words (the rest is KL); variance: of f - m under the full
    model, in nats²; contrast: PCS with the profile minus PCS without; pairwise: PCS of the user's words minus PCS of
    the rejected ones; counts: examples that a head was evaluated on. NaN stands for what was not measured.
    """

    model: str
    architecture: str
    fingerprint: str
    scope: Scope
    ranking: Ranking
    probe: float  # the scale that heads were evaluated at, 0 = muted
    seed: int
    examples: int
    tokens: int  # scored target tokens, all examples together
    evaluations: int  # of a head on an example
    nll: float  # of the user's text with all heads, nats per token, mean over examples
    pcs: Scores
    pcs_stderr: Scores
    gain: Scores
    gain_stderr: Scores
    variance: Scores
    contrast: Scores
    contrast_stderr: Scores
    pairwise: Scores
    pairwise_stderr: Scores
    counts: Scores
    weights: Scores  # of the amplification: heads are scaled by 1 + γ·w
    null_control: float  # largest effect of an intervention that changes nothing (0 on a CPU)
    selected: tuple[Head, ...]  # best first
    mode: Mode
    gamma: float  # 0: steering stays off
    stability: Stability | None = None
    calibration: Calibration | None = None
    metadata: str | None = None  # with `template`, as in Identity
    template: str | None = None

    @property
    def identity(self) -> Identity:
        return Identity(self.fingerprint, self.metadata, self.template)

    @property
    def n_layer(self) -> int:
        return int(self.pcs.shape[0])

    @property
    def n_head(self) -> int:
        return int(self.pcs.shape[1])

    @property
    def unscored_layers(self) -> list[int]:
        """Layers without a head that can be muted: recurrent ones, or attention of the architecture's own."""
        return [int(layer) for layer in np.flatnonzero(np.isnan(self.pcs).all(axis=1))]

    def check(self, model_name: str, identity: Identity) -> str:
        """Raise HeadMapError unless this map was made for that model; return what to say of its chat template."""
        return map_file.check(self.model, self.identity, model_name, identity)

    def save(self, path: Path) -> None:
        """Write a .dps.gguf, readable by its owner only, whole or not at all."""
        map_file.save(path, self.architecture, "user", self._fill)

    def _fill(self, writer: gguf.GGUFWriter) -> None:
        writer.add_string("dps.model", self.model)
        map_file.fill_identity(writer, self.identity)
        writer.add_string("dps.scope", self.scope)
        writer.add_string("dps.ranking", self.ranking)
        writer.add_float64("dps.probe", self.probe)
        writer.add_int64("dps.seed", self.seed)
        writer.add_uint32("dps.examples", self.examples)
        writer.add_uint32("dps.tokens", self.tokens)
        writer.add_uint32("dps.evaluations", self.evaluations)
        writer.add_float64("dps.nll", self.nll)
        writer.add_uint32("dps.n_layer", self.n_layer)
        writer.add_uint32("dps.n_head", self.n_head)
        for name in SCORES:
            writer.add_array(f"dps.{name}", getattr(self, name).ravel().tolist())
        writer.add_float64("dps.null_control", self.null_control)
        if self.selected:  # GGUF has no empty arrays
            writer.add_array("dps.selected", [n for head in self.selected for n in head])
        writer.add_string("dps.mode", self.mode)
        writer.add_float64("dps.gamma", self.gamma)
        if self.stability:
            writer.add_float64("dps.stability.spearman", self.stability.spearman)
            writer.add_float64("dps.stability.jaccard", self.stability.jaccard)
            writer.add_uint32("dps.stability.heads", self.stability.heads)
        if self.calibration:
            fill_calibration(writer, self.calibration)

    @classmethod
    def load(cls, path: Path) -> HeadMap:
        """Read a .dps.gguf or a model that a map was baked into; raises HeadMapError."""
        with map_file.opened(path, "user") as file:
            return cls._parse(file)

    @classmethod
    def _parse(cls, file: GGUFFile) -> HeadMap:
        shape = (int(file.get("dps.n_layer")), int(file.get("dps.n_head")))
        scores: dict[str, Any] = {
            name: np.asarray(file.get(f"dps.{name}"), np.float32).reshape(shape) for name in SCORES
        }
        return cls(
            model=file.text("dps.model"),
            architecture=file.text("general.architecture"),
            **asdict(map_file.read_identity(file)),
            scope=file.one_of("dps.scope", get_args(Scope)),
            ranking=file.one_of("dps.ranking", get_args(Ranking)),
            probe=file.number("dps.probe"),
            seed=int(file.get("dps.seed")),
            examples=int(file.get("dps.examples")),
            tokens=int(file.get("dps.tokens")),
            evaluations=int(file.get("dps.evaluations")),
            nll=file.number("dps.nll"),
            **scores,
            null_control=file.number("dps.null_control"),
            selected=_heads(file.get("dps.selected", []), shape),
            mode=file.one_of("dps.mode", get_args(Mode)),
            gamma=file.number("dps.gamma"),
            stability=_stability(file),
            calibration=read_calibration(file),
        )

    def as_json(self) -> dict[str, Any]:
        """Return the contract's JSON object; null where a layer has fewer heads."""
        return {
            "model": self.model,
            "architecture": self.architecture,
            **asdict(self.identity),
            "n_layer": self.n_layer,
            "n_head": self.n_head,
            "scope": self.scope,
            "ranking": self.ranking,
            "probe": self.probe,
            "seed": self.seed,
            "examples": self.examples,
            "tokens": self.tokens,
            "evaluations": self.evaluations,
            "nll": self.nll,
            **{name: nulls(getattr(self, name)) for name in SCORES},
            "null_control": self.null_control,
            "selected": [list(head) for head in self.selected],
            "mode": self.mode,
            "gamma": self.gamma,
            "stability": asdict(self.stability) if self.stability else None,
            "calibration": asdict(self.calibration) if self.calibration else None,
        }


def _stability(file: GGUFFile) -> Stability | None:
    if file.get("dps.stability.heads") is None:
        return None
    spearman, jaccard = file.number("dps.stability.spearman"), file.number("dps.stability.jaccard")
    return Stability(spearman, jaccard, int(file.get("dps.stability.heads")))


def fill_calibration(writer: gguf.GGUFWriter, calibration: Calibration) -> None:
    for name in ("gain", "low", "high", "temperature", "plain_temperature"):
        writer.add_float64(f"dps.calibration.{name}", getattr(calibration, name))
    writer.add_uint32("dps.calibration.n", calibration.n)
    writer.add_string("dps.calibration.mode", calibration.best.mode)
    if calibration.best.heads is not None:
        writer.add_uint32("dps.calibration.heads", calibration.best.heads)
    writer.add_float64("dps.calibration.gamma", calibration.best.gamma)
    if calibration.more is not None:
        writer.add_uint32("dps.calibration.more", calibration.more)


def read_calibration(file: GGUFFile) -> Calibration | None:
    if file.get("dps.calibration.n") is None:
        return None
    heads, more = file.get("dps.calibration.heads"), file.get("dps.calibration.more")
    mode = file.one_of("dps.calibration.mode", get_args(Mode))
    return Calibration(
        gain=file.number("dps.calibration.gain"),
        low=file.number("dps.calibration.low"),
        high=file.number("dps.calibration.high"),
        n=int(file.get("dps.calibration.n")),
        best=Candidate(mode, None if heads is None else int(heads), file.number("dps.calibration.gamma")),
        temperature=file.number("dps.calibration.temperature"),
        plain_temperature=file.number("dps.calibration.plain_temperature"),
        more=None if more is None else int(more),
    )


def _heads(flat: Any, shape: tuple[int, int]) -> tuple[Head, ...]:
    heads = np.asarray(flat, np.int64).reshape(-1, 2)
    if ((heads < 0) | (heads >= shape)).any():
        raise ValueError("a chosen head is out of range")
    return tuple((int(layer), int(head)) for layer, head in heads)


def nulls(scores: Scores) -> list[list[float | None]]:
    """Return scores for JSON, with None for what is no number."""
    return [[float(x) if np.isfinite(x) else None for x in row] for row in scores]


def top_k(n_heads: int, fraction: float = 0.04) -> int:
    """Return K for a model of n_heads heads: the paper keeps about 4 %, here at least one."""
    return max(1, round(fraction * n_heads))

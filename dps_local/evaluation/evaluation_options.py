"""`EvaluationOptions`: what an evaluation compares, of whom, and how."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Literal

import dps_local
from dps_local.engine.model import Model
from dps_local.engine.sampler import Sampling
from dps_local.evaluation.condition import METHODS, Method
from dps_local.evaluation.grid import Grid
from dps_local.scoring.options import ScoringOptions

VERSION = 2  # raised when the same options give other numbers: records of before are not taken up
HeadSource = Literal["user", "task"]
ItemSelection = Literal["bm25", "recent"]
Half = Literal["choose", "confirm"]
UserSubset = Literal["all", "choose", "confirm"]


@dataclass(frozen=True)
class EvaluationOptions:
    """methods and grid: what is compared. source: of heads. part: which half of the users is evaluated.

    users, queries: at most so many users of a task, and queries of a user, drawn at random; None for all. items: of a
    profile that are shown at most; chosen_by: which. profile_tokens: that they may take. n_predict: of an answer.
    target_tokens: of a gold text whose likelihood is taken. answers: generate, too. samples: answers to a query, where
    sampling is not greedy. clusters: of other users.
    """

    methods: tuple[Method, ...] = METHODS
    grid: Grid = field(default_factory=Grid)
    source: HeadSource = "user"
    subset: UserSubset = "all"
    users: int | None = None
    queries: int | None = None
    items: int = 4
    chosen_by: ItemSelection = "bm25"
    profile_tokens: int = 512
    n_ctx: int = 4096
    n_threads: int | None = None
    n_predict: int = 48
    target_tokens: int = 64
    answers: bool = True
    samples: int = 8
    clusters: int = 3
    sampling: Sampling = field(default_factory=lambda: Sampling(temp=0.8, seed=1))
    scoring: ScoringOptions = field(default_factory=ScoringOptions)

    @property
    def n_answers(self) -> int:
        """How many answers a query gets."""
        return (self.samples if self.sampling.temp > 0 else 1) if self.answers else 0

    def about(self, model: Model) -> dict[str, str]:
        """Return what a reader of results needs to know of the settings."""
        return {
            "model": f"{model.name}, fingerprint {model.fingerprint[:12]}",
            "profile": f"at most {self.items} items in {self.profile_tokens} tokens, chosen by {self.chosen_by}",
            "heads": f"from what the {'user' if self.source == 'user' else 'other half of the users'} wrote: "
            f"{self.scoring.examples} examples of {self.scoring.target_tokens} tokens, scope {self.scoring.scope}",
            "users": f"part {self.subset}, seed {self.scoring.seed}",
            "answers": f"{self.n_answers} a query, at most {self.n_predict} tokens, temperature {self.sampling.temp:g}"
            if self.answers
            else "none",
        }

    def digest(self, model: Model) -> str:
        """Return a digest of what the numbers of one condition and query depend on."""
        key = [
            [VERSION, dps_local.__version__],
            model.identity.digest,
            [self.source, self.items, self.chosen_by, self.profile_tokens, self.n_ctx, self.clusters],
            [self.n_predict, self.target_tokens, self.n_answers, asdict(self.sampling)],
            self.scoring.key(),
        ]
        return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]

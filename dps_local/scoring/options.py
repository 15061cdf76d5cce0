"""`ScoringOptions`: what is scored, how thoroughly, and how heads are chosen by it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from dps_local.engine import native
from dps_local.engine.model import Scope
from dps_local.maps.selection import Ranking
from dps_local.prompting import prompt
from dps_local.scoring.calibrate import GAMMAS, STEPS, TEMPERATURES

LONGER = 4  # times as many tokens of an item calibrate as are scored by ablation


@dataclass(frozen=True)
class ScoringOptions:
    """scope: which tokens are muted. examples: at most so many history items are scored, and held out.

    target_tokens: of one item that is scored, at most 128; of one that is held out LONGER times as many, and at most
    128. top: how many heads may be chosen, None for about 4 %. ranking: what they are chosen by. contrast: measure PCS
    without the profile, too. ablation_scale: the scale that heads are evaluated at, 0 = muted. exhaustive: every head
    on every example. parallel: heads at a time, None for what fits.
    """

    scope: Scope = "generated"
    examples: int = 12
    target_tokens: int = 32
    top: int | None = None
    ranking: Ranking = "gain"
    contrast: bool = False
    ablation_scale: float = 0.0
    exhaustive: bool = False
    seed: int = 0
    resume: bool = True
    parallel: int | None = None
    n_threads: int | None = None

    def key(self) -> list[object]:
        """Return what a head map depends on beside the model and the texts, for JSON."""
        options = asdict(replace(self, parallel=None, n_threads=None, resume=True))
        return [native.PATCH_VERSION, prompt.VERSION, options, GAMMAS, STEPS, TEMPERATURES, LONGER]

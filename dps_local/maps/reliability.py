"""`SplitHalfReliability`: how far two halves of the examples agree on which heads matter."""

from __future__ import annotations

from dataclasses import dataclass, field

from dps_local.maps.fields import COUNT, NUMBER


@dataclass(frozen=True)
class SplitHalfReliability:
    """Agreement of the ranking between random halves of the examples, mean over splits.

    spearman: rank correlation. jaccard: overlap of the best K. heads: how many were compared.
    """

    spearman: float = field(metadata=NUMBER)
    jaccard: float = field(metadata=NUMBER)
    heads: int = field(metadata=COUNT)

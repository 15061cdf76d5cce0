"""Priors that come with the package, for the models of the registry."""

from __future__ import annotations

from contextlib import suppress

from dps_local.engine.identity import Identity
from dps_local.errors import HeadMapError
from dps_local.maps.prior import Prior
from dps_local.system.files import shipped

PATTERN = "*.prior.gguf"


def shipped_priors(identity: Identity) -> list[Prior]:
    """Return the priors of a model, one for each kind of writing, in the order of their files' names."""
    folder, priors = shipped("priors"), list[Prior]()
    for path in sorted(folder.glob(PATTERN)) if folder else ():
        with suppress(HeadMapError):  # of another model, or damaged: an answer can do without
            prior = Prior.load(path)
            prior.check("", identity)
            priors.append(prior)
    return priors

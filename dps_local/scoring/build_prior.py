"""`build_prior`: a prior from the profiles of many people who write one kind of text."""

from __future__ import annotations

from collections.abc import Sequence

from dps_local.engine.model import Model
from dps_local.errors import NativeError, NoSlopesError, ProfileError
from dps_local.maps.model_map import bound_to
from dps_local.maps.prior import Prior
from dps_local.prompting.profile import Profile
from dps_local.prompting.prompt import Prompter
from dps_local.scoring.measured_error import MeasuredPerson, measured_error
from dps_local.scoring.own_slopes import OwnSlopes
from dps_local.scoring.people import FEWEST, check_enough, population_of
from dps_local.scoring.slopes import joined
from dps_local.system.progress import Progress

FEWEST_ITEMS = 2  # of a person, so that how their texts differ is known
FEWEST_PEOPLE = FEWEST + 1  # a step is made of all but one, and tried on that one


def build_prior(
    model: Model,
    people: Sequence[Profile],
    *,
    writing: str,
    source: str,
    licence: str,
    items: int = 16,
    n_samples: int = 1,
    n_ctx: int = 4096,
    n_threads: int | None = None,
    progress: Progress | None = None,
) -> Prior:
    """Return the prior of those who have 2 history items of their own or more, from the newest `items` of each.

    n_samples: as in OwnSlopes, at least 1. progress: counts texts, and then those on whom the others' step is tried.
    Slopes that were measured before are not measured again. Raises DataError for fewer than 4 people, NativeError where
    the model has no slopes, and ProfileError that names a profile that the context has no room for.
    """
    people = [person for person in people if len(person.own_items()) >= FEWEST_ITEMS]
    check_enough(len(people), FEWEST_PEOPLE)
    counts = [len(person.own_items(items)) for person in people]
    measured, done, total = list[MeasuredPerson](), 0, sum(counts) + len(people)

    def tell(part: int, _: int) -> None:
        if progress:
            progress(done + part, total)

    tell(0, 0)
    for person, count in zip(people, counts, strict=True):
        try:
            own = OwnSlopes(Prompter.of(model, person, n_ctx=n_ctx), n_samples, n_threads, count)
            if own.texts:
                measured.append(MeasuredPerson(list(own.texts.values()), own.of(list(own.texts), tell)))
        except ProfileError as exc:
            raise ProfileError(f"{person.path or person.name}: {exc}", exc.remedy) from exc
        except NoSlopesError as exc:
            raise NativeError(f"a prior is made of slopes, and those of {model.name} cannot be had: {exc}") from exc
        done += count
    slopes = [person.slopes for person in measured]
    everyone = joined(slopes)
    return Prior(
        **bound_to(model),
        scope="generated",
        writing=writing,
        source=source,
        licence=licence,
        people=len(measured),
        texts=len(everyone.tokens),
        tokens=everyone.n_tokens,
        nll=float(everyone.nll.sum()) / everyone.n_tokens,
        n_heads=tuple(model.n_heads),
        population=population_of(slopes),
        error=measured_error(model, measured, n_threads, tell),
    )

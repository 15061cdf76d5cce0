"""`Metric`: a number that sums up many records, from sums over each user's, so that users can be drawn again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dps_local.evaluation.record import Record
from dps_local.scoring.calibrate import TEMPERATURES

Sums = NDArray[np.float64]  # [..., n_sums], means over units


@dataclass(frozen=True)
class Metric:
    """sums: of one unit's records, [n_sums]. value: from the mean of sums over units, any leading axes.

    better: 1 where higher is better, -1 where lower is, 0 where neither. has: whether a record has the numbers.
    """

    name: str
    better: int
    has: Callable[[Record], bool]
    sums: Callable[[Sequence[Record]], Sums]
    value: Callable[[Sums], NDArray[np.float64]]


def metrics_of(records: Sequence[Record]) -> list[Metric]:
    """Return the metrics that these records have numbers for: those of one task, in all conditions."""
    metrics = []
    if any(map(_has_nll, records)):
        metrics.append(Metric("nll", -1, _has_nll, _plain_nll, _first))
        metrics.append(Metric("nll_matched", -1, _has_nll, _mean_nll, _lowest))
    for name in sorted({name for r in records for name in r.values}):
        metrics += _of_value(name)
    gold = sorted({r.labels["gold"] for r in records if "gold" in r.labels})
    for by in sorted({name for r in records for name in r.labels if name != "gold"}):
        has, f1 = partial(_has_label, by), partial(_macro_f1, len(gold))
        metrics.append(Metric(f"accuracy_{by}", 1, has, partial(_accuracy, by), _first))
        if 2 * len(gold) <= len({(r.user, r.query) for r in records}):  # else options are each query's own
            metrics.append(Metric(f"macro_f1_{by}", 1, has, partial(_confusion, by, gold), f1))
    return metrics


def _of_value(name: str) -> list[Metric]:
    has, mean = partial(_has_value, name), partial(_mean_value, name)
    if name == "answer_nll":
        return [Metric("answer_perplexity", 0, has, mean, _perplexity)]
    metrics = [Metric(name, BETTER.get(name, 0), has, mean, _first)]
    if name.startswith("mae"):
        metrics.append(Metric(name.replace("mae", "rmse"), -1, has, partial(_mean_square, name), _root))
    return metrics


BETTER = {
    "style": 1,
    "end_nll": -1,
    "rouge_1": 1,
    "rouge_l": 1,
    "meteor": 1,
    "meteor_stem": 1,
    "mae_answer": -1,
    "mae_likelihood": -1,
    "repetition": -1,
    "time": -1,
}


def _has_nll(record: Record) -> bool:
    return len(record.nll) == len(TEMPERATURES)  # an earlier version had other ones


def _has_value(name: str, record: Record) -> bool:
    return name in record.values


def _has_label(by: str, record: Record) -> bool:
    return by in record.labels


def _mean(values: Sequence[float]) -> Sums:
    return np.array([np.mean(values)])


def _mean_value(name: str, records: Sequence[Record]) -> Sums:
    return _mean([r.values[name] for r in records])


def _mean_square(name: str, records: Sequence[Record]) -> Sums:
    return _mean([r.values[name] ** 2 for r in records])


def _plain_nll(records: Sequence[Record]) -> Sums:
    return _mean([r.nll[0] for r in records])


def _mean_nll(records: Sequence[Record]) -> Sums:
    return np.asarray(np.mean([r.nll for r in records], axis=0))


def _accuracy(by: str, records: Sequence[Record]) -> Sums:
    return _mean([float(r.labels[by] == r.labels["gold"]) for r in records])


def _confusion(by: str, labels: Sequence[str], records: Sequence[Record]) -> Sums:
    """Return, of each label, how often it was right, chosen, and gold: [3 · n_labels], counts."""
    counts = np.zeros((3, len(labels)))
    places = {label: i for i, label in enumerate(labels)}
    for record in records:
        gold, chosen = record.labels["gold"], record.labels[by]
        counts[2, places[gold]] += 1
        if chosen in places:
            counts[1, places[chosen]] += 1
            counts[0, places[chosen]] += gold == chosen
    return counts.ravel()


def _first(sums: Sums) -> NDArray[np.float64]:
    return sums[..., 0]


def _root(sums: Sums) -> NDArray[np.float64]:
    return np.asarray(np.sqrt(sums[..., 0]))


def _perplexity(sums: Sums) -> NDArray[np.float64]:
    return np.asarray(np.exp(sums[..., 0]))


def _lowest(sums: Sums) -> NDArray[np.float64]:
    """Return the NLL at the one temperature that is best on average."""
    assert sums.shape[-1] == len(TEMPERATURES)
    return np.asarray(sums.min(axis=-1))


def _macro_f1(labels: int, sums: Sums) -> NDArray[np.float64]:
    """Return the mean over labels of 2·right / (chosen + gold); a label that neither has counts as 0."""
    right, chosen, gold = np.moveaxis(sums.reshape(*sums.shape[:-1], 3, labels), -2, 0)
    both = chosen + gold
    return np.asarray(np.divide(2 * right, both, out=np.zeros_like(both), where=both > 0).mean(axis=-1))

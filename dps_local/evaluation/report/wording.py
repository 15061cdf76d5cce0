"""Words and numbers of the report that all its forms share."""

from __future__ import annotations

import math
from collections.abc import Callable

from dps_local.drawing.text import MINUS, percent
from dps_local.evaluation.comparison import Difference, Estimate
from dps_local.scoring.intervals import DRAWS, FEWEST

Formatter = Callable[[str, float], str]  # a metric's value as text

TITLE = "Does steering help?"
NOTHING = "No condition that steers heads was compared with the profile alone; the tables show what was measured."
TOO_FEW = "too few users"
VERDICTS = ("helps", "no difference shown", "hurts", TOO_FEW)
METRIC_LABELS = {
    "nll": "NLL",
    "nll_matched": "NLL at the best temperature",
    "end_nll": "NLL of the end",
    "style": "style margin",
    "rouge_1": "ROUGE-1",
    "rouge_l": "ROUGE-L",
    "meteor": "METEOR",
    "meteor_stem": "METEOR of stems",
    "accuracy_likelihood": "accuracy by likelihood",
    "accuracy_answer": "accuracy by answer",
    "macro_f1_likelihood": "macro F1 by likelihood",
    "macro_f1_answer": "macro F1 by answer",
    "mae_likelihood": "MAE by likelihood",
    "mae_answer": "MAE by answer",
    "rmse_likelihood": "RMSE by likelihood",
    "rmse_answer": "RMSE by answer",
    "answer_perplexity": "perplexity of the answer",
    "time": "time a token",
    "length": "length ratio",
    "answer_tokens": "tokens",
    "answer_ended": "ended by itself",
}
METRIC_DIGITS = {"nll": 4, "nll_matched": 4, "style": 4, "answer_tokens": 1, "time": 2, "answer_perplexity": 1}
READING_NOTES = (
    f"Numbers in square brackets are 95 % intervals over users, by bootstrap-t: {DRAWS} times, as many users as there "
    "are are drawn with replacement, and the interval is as many standard errors wide as it takes to hold for 95 % of "
    "such draws, and never less than Student’s t. Differences are paired: both conditions answer the same queries. "
    f"Where a task has fewer than {FEWEST} users there is no verdict; the interval of one user is over the queries, "
    "and says nothing of others.",
    "A condition helps, or hurts, where the whole interval of its difference lies on that side of 0. Of many "
    "conditions that change nothing, about one in twenty would look as if it did, and the best of many looks better "
    "than it is. Only ‘calibrated’ was chosen without the queries that it is judged by. The best condition is looked "
    "for among those that steer by heads measured on the user or the user’s cluster.",
    "A user is helped, or hurt, where the condition is better, or worse, over all of that user’s queries, by however "
    "little. Random heads are drawn several times and taken together. The time a token is divided by that of "
    "‘profile’.",
)


def metric_label(metric: str) -> str:
    return METRIC_LABELS.get(metric, metric.replace("_", " "))


def direction_text(better: int) -> str:
    return {1: "higher is better", -1: "lower is better", 0: ""}[better]


def formatted(metric: str, value: float) -> str:
    return f"{value:.{METRIC_DIGITS.get(metric, 3)}f}"


def with_interval(metric: str, value: float, low: float, high: float, formatter: Formatter = formatted) -> str:
    return f"{formatter(metric, value)} {interval_text(metric, low, high, formatter)}".rstrip()


def interval_text(metric: str, low: float, high: float, formatter: Formatter = formatted) -> str:
    """Return an interval in brackets; "" for an infinite one."""
    return f"[{formatter(metric, low)}, {formatter(metric, high)}]" if math.isfinite(high - low) else ""


def value_text(estimate: Estimate) -> str:
    return with_interval(estimate.metric, estimate.value, estimate.low, estimate.high)


def difference_text(metric: str, difference: Difference) -> str:
    return with_interval(metric, difference.value, difference.low, difference.high, signed)


def shares_text(difference: Difference | None) -> str:
    if difference is None or difference.helped is None or difference.hurt is None:
        return ""
    return f"{percent(difference.helped)} / {percent(difference.hurt)}"


def signed(metric: str, value: float) -> str:
    return f"{'-' if value < 0 else '+'}{formatted(metric, abs(value))}".replace("-", MINUS)

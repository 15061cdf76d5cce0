"""Preference Contribution Scores on tiny models, against one full forward pass for each head and example."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from tiny import TinyModel

from dps_local.context import N_UBATCH, Context, Run
from dps_local.errors import ModelError, ProfileError
from dps_local.head_map import Head, select, top_k
from dps_local.model import Model, head_mask
from dps_local.profile import HistoryItem, Profile
from dps_local.prompt import Prompter
from dps_local.scoring import Example, Scorer, ScoringOptions, make_examples, parallel_sequences, score
from dps_local.template import ChatTemplate

SCOPES: tuple[Literal["generated", "all"], ...] = ("generated", "all")
KINDS = ("llama", "gemma3", "deci", "lfm2")
OPTIONS = ScoringOptions(target_tokens=12, n_threads=1)

HISTORY = (
    HistoryItem("Cheers, all sorted. Bring the blue ladder.", "Tell Sam about the shed"),
    HistoryItem("No need to rush, love. Tea's on at six."),
    HistoryItem("Right then! Off to the allotment.", "Say where you are"),
)
PROFILE = Profile(name="Mara", preferences=("short",), history=HISTORY)


@pytest.fixture
def load() -> Iterator[Callable[[Path], Model]]:
    models: list[Model] = []

    def open_(path: Path) -> Model:
        models.append(Model(path))
        return models[-1]

    yield open_
    for model in models:
        model.close()


@pytest.fixture
def prompter(tiny_model: TinyModel, load: Callable[[Path], Model]) -> Callable[..., Prompter]:
    def make(kind: str = "llama", profile: Profile = PROFILE, budget: int = 160) -> Prompter:
        model = load(tiny_model(kind))
        return Prompter(model, ChatTemplate(model), profile, budget)

    return make


# --- the oracle: no batches, no shared prefixes, no float32


def brute_force_nll(
    model: Model, example: Example, head: Head | None, scope: str, continue_with: Model | None = None
) -> float:
    """Return the mean NLL of the target, from a context that reads the whole example for this one head.

    continue_with: a model with edited weights that goes on where the scope begins, from a copy of the KV state.
    """
    reader = continue_with if continue_with and scope == "all" else model
    context = Context(reader, 640, n_outputs=64, n_threads=1, flash_attn=False)
    mask = head_mask(model, [head]) if head else None
    if scope == "all":
        context.set_head_scales(0, mask)
    prefix = example.prompt[:-1]
    for i in range(0, len(prefix), N_UBATCH):
        context.decode([Run(0, i, prefix[i : i + N_UBATCH])])
    if continue_with and scope == "generated":
        writer = Context(continue_with, 640, n_outputs=64, n_threads=1, flash_attn=False)
        writer.set_state(context.state())
    else:
        writer = context
    writer.set_head_scales(0, mask)
    tokens = [example.prompt[-1], *example.target[:-1]]
    logits = writer.decode([Run(0, len(prefix), tokens, len(tokens))]).astype(np.float64)
    nll = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(tokens)), example.target]
    context.close()
    writer.close()
    return float(nll.mean())


def brute_force_pcs(model: Model, examples: Sequence[Example], scope: str) -> NDArray[np.float64]:
    """Return NLL(muted) - NLL of each example and head: [n_examples, n_heads]."""
    return np.array(
        [
            [brute_force_nll(model, e, head, scope) - brute_force_nll(model, e, None, scope) for head in model.heads()]
            for e in examples
        ]
    )


# another batch shape may take other kernels, which round another way: up to 2e-6 was seen, and a last digit of the
# float16 cache costs a hundred times that
ROUNDING = 2e-4


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", KINDS)
def test_scores_equal_one_full_forward_for_each_head(
    kind: str, scope: Literal["generated", "all"], prompter: Callable[..., Prompter]
) -> None:
    p, options = prompter(kind), replace(OPTIONS, scope=scope)
    examples, heads = make_examples(p, options), p.model.heads()
    expected = brute_force_pcs(p.model, examples, scope)
    found = score(p.model, p, options)
    reached = [not np.isnan(found.pcs[head]) for head in heads]
    assert reached == [bool(column.any()) for column in expected.T]
    for head, column in zip(heads, expected.T, strict=True):
        if np.isnan(found.pcs[head]):
            continue
        assert found.pcs[head] == pytest.approx(column.mean(), abs=ROUNDING)
        assert found.pcs_stderr[head] == pytest.approx(column.std(ddof=1) / math.sqrt(3), abs=ROUNDING)
    nll = np.mean([brute_force_nll(p.model, e, None, scope) for e in examples])
    assert found.nll == pytest.approx(nll, abs=ROUNDING)
    # the scores are about something: far above the rounding
    assert np.nanmax(np.abs(found.pcs)) > 100 * ROUNDING


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(("kind", "heads"), [("llama", ((0, 5), (1, 0))), ("gemma3", ((0, 1), (2, 2)))])
def test_scores_equal_those_of_models_whose_output_columns_are_zero(
    kind: str,
    heads: tuple[Head, ...],
    scope: Literal["generated", "all"],
    tiny_model: TinyModel,
    load: Callable[[Path], Model],
    prompter: Callable[..., Prompter],
) -> None:
    p, options = prompter(kind), replace(OPTIONS, scope=scope)
    examples = make_examples(p, options)
    found = score(p.model, p, options)
    for head in heads:
        without = load(tiny_model(kind, edit={head: 0.0}))
        # no scale is set here: the weights alone mute the head
        losses = [
            brute_force_nll(p.model, e, None, scope, continue_with=without) - brute_force_nll(p.model, e, None, scope)
            for e in examples
        ]
        assert found.pcs[head] == pytest.approx(np.mean(losses), abs=ROUNDING)


def test_the_two_scopes_score_differently(prompter: Callable[..., Prompter]) -> None:
    p = prompter()
    generated, whole = (score(p.model, p, replace(OPTIONS, scope=scope)) for scope in SCOPES)
    assert (generated.scope, whole.scope) == SCOPES
    assert np.abs(generated.pcs - whole.pcs).max() > 0.01
    assert generated.nll == pytest.approx(whole.nll, abs=ROUNDING)  # nothing is muted there


@pytest.mark.parametrize("scope", SCOPES)
def test_scores_do_not_depend_on_how_many_heads_are_evaluated_at_a_time(
    scope: Literal["generated", "all"], prompter: Callable[..., Prompter]
) -> None:
    p = prompter()
    one, *others = (score(p.model, p, replace(OPTIONS, scope=scope, parallel=n)) for n in (1, 2, 5, 7))
    for other in others:
        np.testing.assert_allclose(other.pcs, one.pcs, rtol=0, atol=ROUNDING)
        np.testing.assert_allclose(other.pcs_stderr, one.pcs_stderr, rtol=0, atol=ROUNDING)


def test_scores_are_the_same_at_every_run(prompter: Callable[..., Prompter]) -> None:
    p = prompter()
    first, second = score(p.model, p, OPTIONS), score(p.model, p, OPTIONS)
    assert np.array_equal(first.pcs, second.pcs)
    assert first.selected == second.selected


def test_a_prompt_longer_than_a_batch_is_read_in_parts(prompter: Callable[..., Prompter]) -> None:
    p = prompter("qwen2", Profile(about="She minds her bees. " * 26, history=HISTORY[:1]), budget=600)
    (example,) = make_examples(p, OPTIONS)
    assert len(example.prompt) > N_UBATCH
    for scope in SCOPES:
        found = score(p.model, p, replace(OPTIONS, scope=scope))
        for head in ((0, 0), (1, 3)):
            expected = brute_force_nll(p.model, example, head, scope) - brute_force_nll(p.model, example, None, scope)
            assert found.pcs[head] == pytest.approx(expected, abs=ROUNDING)


def test_a_target_of_one_token_is_scored(prompter: Callable[..., Prompter]) -> None:
    p, options = prompter(), replace(OPTIONS, target_tokens=1)
    examples = make_examples(p, options)
    assert [len(e.target) for e in examples] == [1, 1, 1]
    expected = brute_force_pcs(p.model, examples, "generated").mean(axis=0)
    np.testing.assert_allclose(score(p.model, p, options).pcs.ravel(), expected, rtol=0, atol=ROUNDING)


# --- null control


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_null_control_is_exactly_zero(
    kind: str, scope: Literal["generated", "all"], prompter: Callable[..., Prompter]
) -> None:
    p = prompter(kind)
    assert score(p.model, p, replace(OPTIONS, scope=scope)).null_control == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_scale_of_one_has_a_score_of_exactly_zero_in_every_slot(kind: str, prompter: Callable[..., Prompter]) -> None:
    p = prompter(kind)
    examples = make_examples(p, OPTIONS)
    scorer = Scorer(p.model, examples, replace(OPTIONS, parallel=4))
    try:
        for example in examples:
            heads: list[Head | None] = [None] * 4 + [*p.model.heads()][:8]
            first, *scaled = scorer.losses(example, heads, scale=1.0)
            assert all(np.array_equal(batch, first) for batch in scaled)
    finally:
        scorer.close()


# --- aggregation


def test_a_single_example_has_no_standard_error(prompter: Callable[..., Prompter]) -> None:
    p = prompter(profile=Profile(history=HISTORY[:1]))
    found = score(p.model, p, OPTIONS)  # a warning would be an error here
    assert found.examples == 1
    assert np.isnan(found.pcs_stderr).all()
    assert not np.isnan(found.pcs).any()
    assert found.as_json()["pcs_stderr"] == [[None] * 6] * 3


def test_the_map_says_what_it_was_made_from(prompter: Callable[..., Prompter]) -> None:
    p = prompter()
    found = score(p.model, p, replace(OPTIONS, gamma=0.75, top=4))
    assert (found.model, found.architecture, found.fingerprint) == ("Tiny", "llama", p.model.fingerprint)
    assert (found.examples, found.tokens, found.gamma) == (3, 36, 0.75)
    assert found.pcs.shape == found.pcs_stderr.shape == (3, 6)
    assert found.pcs.dtype == np.float32


def test_progress_counts_every_head_evaluation_up_to_the_total(prompter: Callable[..., Prompter]) -> None:
    p, calls = prompter(), list[tuple[int, int]]()
    score(p.model, p, replace(OPTIONS, parallel=7), lambda done, total: calls.append((done, total)))
    assert calls[:4] == [(7, 54), (14, 54), (18, 54), (25, 54)]
    assert calls[-1] == (54, 54)


def test_a_layer_without_attention_has_no_scores(prompter: Callable[..., Prompter]) -> None:
    p = prompter("lfm2")  # attention in layer 1 of three
    found = score(p.model, p, OPTIONS)
    assert np.isnan(found.pcs).all(axis=1).tolist() == [True, False, True]
    assert np.isnan(found.pcs_stderr).all(axis=1).tolist() == [True, False, True]
    assert not np.isnan(found.pcs[1]).any()
    assert {layer for layer, _ in found.selected} <= {1}


def test_columns_past_a_layers_own_heads_have_no_scores(prompter: Callable[..., Prompter]) -> None:
    p = prompter("deci")  # 4, 2, 4 (linear attention), 0 and 3 heads
    missing = np.isnan(score(p.model, p, OPTIONS).pcs)
    assert missing.sum(axis=1).tolist() == [0, 2, 4, 4, 1]
    assert missing[1].tolist() == [False, False, True, True]


def test_a_model_without_attention_cannot_be_scored(prompter: Callable[..., Prompter]) -> None:
    p = prompter("mamba")
    with pytest.raises(ModelError, match="'mamba' has no attention heads"):
        score(p.model, p, OPTIONS)


# --- selection


def test_heads_are_selected_by_score_and_never_at_or_below_zero() -> None:
    nan = math.nan
    pcs = np.array([[0.1, -0.2, 0.0], [nan, 0.3, 0.2], [0.2, -0.0, nan]], np.float32)
    assert select(pcs, 2) == ((1, 1), (1, 2))
    assert select(pcs, 3) == ((1, 1), (1, 2), (2, 0))  # of equal scores the first
    assert select(pcs, 9) == ((1, 1), (1, 2), (2, 0), (0, 0))
    assert select(pcs, 0) == ()
    assert select(np.full((2, 2), -1, np.float32), 4) == ()
    assert select(np.full((2, 2), nan, np.float32), 4) == ()


@given(
    hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=2, max_dims=2), elements=st.floats(-1, 1, width=32) | st.just(math.nan)
    ),
    st.integers(0, 40),
)
def test_the_selected_heads_are_the_highest_positive_ones(pcs: NDArray[np.float32], k: int) -> None:
    chosen = select(pcs, k)
    scores = [float(pcs[head]) for head in chosen]
    positive = sorted((float(x) for x in pcs.ravel() if x > 0), reverse=True)
    assert scores == positive[:k]
    assert len(set(chosen)) == len(chosen)


@pytest.mark.parametrize(("n_heads", "k"), [(270, 11), (72, 3), (1024, 41), (12, 1), (1, 1), (13, 1)])
def test_about_four_percent_of_the_heads_are_chosen_and_at_least_one(n_heads: int, k: int) -> None:
    assert top_k(n_heads) == k


@pytest.mark.parametrize("top", [None, 1, 3, 99])
def test_the_map_keeps_the_best_heads(top: int | None, prompter: Callable[..., Prompter]) -> None:
    p = prompter()
    found = score(p.model, p, replace(OPTIONS, top=top))
    assert found.selected == select(found.pcs, 1 if top is None else top)  # 4 % of 18 heads is one
    assert all(found.pcs[head] > 0 for head in found.selected)


# --- examples


def test_an_item_is_left_out_of_the_profile_that_its_own_prompt_shows(prompter: Callable[..., Prompter]) -> None:
    p = prompter(budget=400)
    for i, item in enumerate(HISTORY):
        tokens, target = p.example(i)
        prompt = bytes_of(p.model, tokens)
        assert item.output.encode() not in prompt
        assert all(other.output.encode() in prompt for other in HISTORY if other is not item)
        assert bytes_of(p.model, target) == item.output.encode()


def bytes_of(model: Model, tokens: Sequence[int]) -> bytes:
    return b"".join(map(model.piece, tokens))


def test_the_newest_items_stay_when_the_profile_is_too_long(prompter: Callable[..., Prompter]) -> None:
    history = tuple(HistoryItem(f"Item number {i:02}.") for i in range(20))
    shown = 21
    for budget in (2000, 600, 400, 200, 20):
        p = prompter(profile=Profile(history=history), budget=budget)
        system, n = p.system()
        present = [item.output in system for item in history]
        assert present == [False] * (20 - n) + [True] * n
        assert n < shown
        assert len(p.model.tokenize(system, special=False)) <= budget or n == 0
        shown = n
    assert shown == 0


def test_a_left_out_item_makes_room_for_the_next_older_one(prompter: Callable[..., Prompter]) -> None:
    history = tuple(HistoryItem(f"Item number {i:02}.") for i in range(20))
    p = prompter(profile=Profile(history=history), budget=400)
    _, n = p.system()
    system, without = p.system(leave_out=19)
    assert without == n
    assert "number 19" not in system
    assert f"number {19 - n:02}" in system


def test_the_newest_items_become_examples_oldest_first(prompter: Callable[..., Prompter]) -> None:
    p = prompter()
    examples = make_examples(p, replace(OPTIONS, examples=2))
    assert [bytes_of(p.model, e.target) for e in examples] == [
        # "the", "in" and the like are one token of this vocabulary: 12 tokens are more bytes than 12
        bytes_of(p.model, p.example(i)[1][:12])
        for i in (1, 2)
    ]
    assert [len(e.target) for e in examples] == [12, 12]


@pytest.mark.parametrize("profile", [Profile(preferences=("short",)), Profile()])
def test_a_profile_without_history_cannot_be_scored(profile: Profile, prompter: Callable[..., Prompter]) -> None:
    p = prompter(profile=profile)
    with pytest.raises(ProfileError, match="no history"):
        score(p.model, p, OPTIONS)


@pytest.mark.parametrize(
    ("profile", "options"),
    [
        (Profile(history=(HistoryItem(" "), HistoryItem("", "A request"))), OPTIONS),
        (PROFILE, ScoringOptions(examples=0)),
        (PROFILE, ScoringOptions(target_tokens=0)),
    ],
)
def test_a_history_without_a_token_to_score_is_refused(
    profile: Profile, options: ScoringOptions, prompter: Callable[..., Prompter]
) -> None:
    p = prompter(profile=profile)
    with pytest.raises(ProfileError):
        score(p.model, p, options)


# --- how many at a time


def test_more_text_means_fewer_sequences_at_a_time(prompter: Callable[..., Prompter]) -> None:
    model = prompter().model
    assert parallel_sequences(model, 300, 32) == 16
    assert parallel_sequences(model, 300, 64) == 8  # 512 tokens are a batch
    assert parallel_sequences(model, 300, 5000) == 1
    assert parallel_sequences(model, 10**7, 32) == 1

"""Scoring a profile: from its history to a head map, on tiny models; test_head_ablation.py holds its arithmetic."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny import TinyModel

from dps_local.engine.context import N_UBATCH, Context, Run
from dps_local.engine.model import Head, Model, head_mask
from dps_local.errors import ModelError, ProfileError
from dps_local.maps.head_map import HeadMap
from dps_local.prompting.chat_template import ChatTemplate
from dps_local.prompting.profile import HistoryItem, Profile
from dps_local.prompting.prompt import DEFAULT_REQUEST, ITEM_SHARE, TRUNCATION_MARGIN, Prompter, Request
from dps_local.scoring.example import Example, make_example
from dps_local.scoring.forked_sequences import ScoredText
from dps_local.scoring.head_ablation import HeadAblation
from dps_local.scoring.head_effects import HeadEffects
from dps_local.scoring.held_out_losses import HeldOutLosses
from dps_local.scoring.options import ScoringOptions
from dps_local.scoring.own_slopes import OwnSlopes
from dps_local.scoring.scoring import score, split_history
from dps_local.scoring.statistics import lower_bound
from dps_local.scoring.successive_halving import BUDGET, promoted, schedule

SCOPES: tuple[Literal["generated", "all"], ...] = ("generated", "all")
OPTIONS = ScoringOptions(target_tokens=12, n_threads=1)

HISTORY = (
    HistoryItem("Cheers, all sorted. Bring the blue ladder.", "Tell Sam about the shed", "Dear Sam, it is done."),
    HistoryItem("No need to rush, love. Tea's on at six."),
    HistoryItem("Right then! Off to the allotment.", "Say where you are"),
)
PROFILE = Profile(name="Mara", preferences=("short",), history=HISTORY)
LONGER = Profile(
    name="Mara", history=tuple(HistoryItem(f"{i} jars of plum jam, all told, by {i}.") for i in range(1, 15))
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def prompter(tiny_model: TinyModel, load: Callable[[Path], Model]) -> Callable[..., Prompter]:
    def make(kind: str = "llama", profile: Profile = PROFILE, budget: int = 160, n_ctx: int = 512) -> Prompter:
        model = load(tiny_model(kind))
        return Prompter(model, ChatTemplate(model), profile, budget, n_ctx)

    return make


def scored(prompter: Prompter, options: ScoringOptions = OPTIONS, **rest: Any) -> HeadMap:
    return score(prompter.model, prompter, options, **rest)


def assert_equal(a: HeadMap, b: HeadMap) -> None:
    for field in fields(HeadMap):
        x, y = getattr(a, field.name), getattr(b, field.name)
        assert np.array_equal(x, y, equal_nan=True) if isinstance(x, np.ndarray) else x == y, field.name


# --- against one full forward pass for each head and example


def brute_force_nll(model: Model, text: ScoredText, head: Head | None, scope: str, scale: float = 0.0) -> float:
    """Return the mean NLL of the target, from a context that reads the whole text for this one head."""
    context = Context(model, 640, n_outputs=64, n_threads=1, flash_attn=False)
    mask = head_mask(model, [head], scale) if head else None
    context.set_head_scales(0, mask if scope == "all" else None)
    last = len(text.prompt) - 1
    for i in range(0, last, N_UBATCH):
        context.decode([Run(0, i, text.prompt[i : min(i + N_UBATCH, last)])])
    context.set_head_scales(0, mask)
    tokens = [text.prompt[last], *text.target[:-1]]
    logits = context.decode([Run(0, last, tokens, len(tokens))]).astype(np.float64)
    context.close()
    return float((np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(tokens)), text.target]).mean())


def brute_force_pcs(model: Model, texts: Sequence[ScoredText], scope: str, scale: float = 0.0) -> NDArray[np.float64]:
    """Return NLL(head scaled) - NLL of each text and head: [n_texts, n_heads]."""
    return np.array(
        [
            [
                brute_force_nll(model, t, head, scope, scale) - brute_force_nll(model, t, None, scope)
                for head in model.heads()
            ]
            for t in texts
        ]
    )


# another batch shape may take other kernels, which round another way: up to 2e-6 was seen, and a last digit of the
# float16 cache costs a hundred times that
ROUNDING = 2e-4


def examples_of(prompter: Prompter, options: ScoringOptions = OPTIONS) -> list[Example]:
    examples = (make_example(prompter, i, options) for i in range(len(prompter.profile.history)))
    return [example for example in examples if example]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", ["llama", "gemma3", "deci", "lfm2"])
def test_scores_are_means_over_examples_with_their_errors(
    kind: str, scope: Literal["generated", "all"], prompter: Callable[..., Prompter]
) -> None:
    p, options = prompter(kind), replace(OPTIONS, scope=scope, contrast=True)
    examples, heads = examples_of(p, options), p.model.heads()
    pcs = brute_force_pcs(p.model, [e.text for e in examples], scope)
    without_profile = brute_force_pcs(p.model, [e.without_profile for e in examples if e.without_profile], scope)
    rejected = brute_force_pcs(p.model, [e.rejected for e in examples if e.rejected], scope)
    head_map = scored(p, options)
    assert [not np.isnan(head_map.pcs[head]) for head in heads] == [bool(column.any()) for column in pcs.T]
    for i, head in enumerate(heads):
        if np.isnan(head_map.pcs[head]):
            continue
        assert head_map.pcs[head] == pytest.approx(pcs[:, i].mean(), abs=ROUNDING)
        assert head_map.pcs_stderr[head] == pytest.approx(pcs[:, i].std(ddof=1) / math.sqrt(3), abs=ROUNDING)
        assert head_map.contrast[head] == pytest.approx((pcs - without_profile)[:, i].mean(), abs=2 * ROUNDING)
        assert head_map.pairwise[head] == pytest.approx(pcs[0, i] - rejected[0, i], abs=2 * ROUNDING)
        assert np.isnan(head_map.pairwise_stderr[head])  # one item alone has a rejected answer
        assert head_map.counts[head] == 3
    assert head_map.nll == pytest.approx(
        np.mean([brute_force_nll(p.model, e.text, None, scope) for e in examples]), abs=ROUNDING
    )
    # the scores are about something: far above the rounding
    assert np.nanmax(np.abs(head_map.pcs)) > 100 * ROUNDING
    assert head_map.null_control == 0.0


def test_a_probe_scales_heads_instead_of_muting_them(prompter: Callable[..., Prompter]) -> None:
    p, options = prompter(), replace(OPTIONS, ablation_scale=0.5)
    expected = brute_force_pcs(p.model, [e.text for e in examples_of(p)], "generated", 0.5).mean(axis=0)
    head_map = scored(p, options)
    assert [head_map.pcs[head] for head in p.model.heads()] == pytest.approx(expected, abs=ROUNDING)
    assert head_map.ablation_scale == 0.5


def test_the_profile_contrast_is_measured_on_request_alone(prompter: Callable[..., Prompter]) -> None:
    assert np.isnan(scored(prompter()).contrast).all()
    ranked = scored(prompter(), replace(OPTIONS, ranking="contrast"))
    assert np.isfinite(ranked.contrast).all()
    assert ranked.ranking == "contrast"


# --- what is scored


def test_an_item_is_shown_with_the_items_before_it_alone(prompter: Callable[..., Prompter]) -> None:
    p = prompter(budget=1600, n_ctx=2048)
    prompts = [p.model.detokenize(e.text.prompt) for e in examples_of(p)]
    shown = [[item.output in prompt for item in HISTORY] for prompt in prompts]
    assert shown == [[False, False, False], [True, False, False], [True, True, False]]
    targets = [e.text.target for e in examples_of(p)]
    assert targets == [p.model.tokenize(item.output, special=False)[:12] for item in HISTORY]


def test_the_end_of_a_text_counts_where_it_is_not_cut(prompter: Callable[..., Prompter]) -> None:
    """Against contexts that read each text and its end as the chat template writes it: an untouched forward each."""
    p, options = prompter(), replace(OPTIONS, target_tokens=42, exhaustive=True)
    head_map = scored(p, options)
    end = p.model.tokenize("<|im_end|>", special=True)
    texts, cut = list[ScoredText](), list[bool]()
    for i, item in enumerate(HISTORY):
        output = p.model.tokenize(item.output, special=False)
        cut.append(len(output) >= 42)
        texts.append(ScoredText(p.example(i, 42)[0], output[:42] if cut[-1] else [*output, *end]))
    assert cut == [False, False, False]
    ends = [brute_force_nll(p.model, text, None, "generated") for text in texts]
    assert head_map.nll == pytest.approx(np.mean(ends), abs=ROUNDING)
    without = [brute_force_nll(p.model, ScoredText(t.prompt, t.target[:-1]), None, "generated") for t in texts]
    assert abs(np.mean(ends) - np.mean(without)) > 100 * ROUNDING
    pcs = brute_force_pcs(p.model, texts, "generated").mean(axis=0)
    assert [head_map.pcs[head] for head in p.model.heads()] == pytest.approx(pcs, abs=ROUNDING)
    rejected = examples_of(p, options)[0].rejected
    assert rejected
    assert rejected.target == [*p.model.tokenize("Dear Sam, it is done.", special=False), *end]


def test_a_text_that_is_cut_has_no_end(prompter: Callable[..., Prompter]) -> None:
    p = prompter()
    tokens = p.model.tokenize(HISTORY[0].output, special=False)
    end = p.model.tokenize("<|im_end|>", special=True)
    assert p.target(HISTORY[0].output, len(tokens) + 9) == [*tokens, *end]
    assert p.target(HISTORY[0].output, len(tokens) + 1) == [*tokens, *end]
    assert p.target(HISTORY[0].output, len(tokens)) == tokens
    assert p.target(HISTORY[0].output, len(tokens) - 1) == tokens[:-1]
    assert p.target("", 9) == p.target("  ", 9) == []


TURNS = "{% for m in messages %}{{ m.role + ': ' + m.content + END + '\n' }}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (TURNS.replace("END", "'<|im_end|>'"), "<|im_end|>"),
        (TURNS.replace("END", "' ' + eos_token"), " <|im_end|>"),  # Llama 2 has a blank there
        (TURNS.replace("END", "'<|endoftext|>'"), "<|endoftext|>"),
        (TURNS.replace("END", "'<|im_start|>'"), "<|im_end|>"),  # which ends no answer: the EOS does
        (TURNS.replace("END", "''"), "<|im_end|>"),
        ("{{ messages[-1].content }}", "<|im_end|>"),  # single turns
        (None, "\n\n"),  # a base model's layout
    ],
)
def test_an_end_is_what_the_template_puts_after_an_answer(
    template: str | None, end: str, tiny_model: TinyModel, load: Callable[[Path], Model]
) -> None:
    model = load(tiny_model(chat_template=template))
    assert Prompter(model, ChatTemplate(model), PROFILE, 160).end == model.tokenize(end, special=True)


def test_a_bare_prompt_is_the_request_alone(prompter: Callable[..., Prompter]) -> None:
    without_profile = examples_of(prompter(), replace(OPTIONS, contrast=True))[2].without_profile
    assert without_profile
    text = prompter().model.detokenize(without_profile.prompt)
    assert "Say where you are" in text
    assert not any(word in text for word in ("Mara", "short", "Cheers"))


def test_a_rejected_answer_follows_the_same_prompt(prompter: Callable[..., Prompter]) -> None:
    first, second, _ = examples_of(prompter())
    assert first.rejected
    assert first.rejected.prompt == first.text.prompt
    assert prompter().model.detokenize(first.rejected.target) == "Dear Sam, it"
    assert second.rejected is None


def test_a_request_longer_than_the_context_loses_its_end(prompter: Callable[..., Prompter]) -> None:
    long = Profile(history=(HistoryItem("Fine.", "Answer this: " + "so on and so forth " * 500),))
    p = prompter(profile=long, n_ctx=256)
    (example,) = examples_of(p)
    assert 200 < len(example.text.prompt) + OPTIONS.target_tokens <= 256
    assert "Answer this: so on" in p.model.detokenize(example.text.prompt)
    with pytest.raises(ProfileError, match="leaves no room for a request in 40 tokens"):
        examples_of(prompter(profile=long, n_ctx=40))


def test_a_long_item_takes_its_share_of_the_profile_at_most(prompter: Callable[..., Prompter]) -> None:
    p = prompter(profile=Profile(history=(HistoryItem("a" * 5000), HistoryItem("short one"))), budget=400)
    long, short = p.earlier()
    assert long.answer.endswith("aaa …")
    taken = len(p.prompt("", Request("Q", [long]))) - len(p.prompt("", Request("Q")))
    assert 400 // ITEM_SHARE - 3 * TRUNCATION_MARGIN <= taken <= 400 // ITEM_SHARE
    assert short == (DEFAULT_REQUEST, "short one")


def test_a_history_of_thousands_of_items_is_sampled_by_the_newest(prompter: Callable[..., Prompter]) -> None:
    many = Profile(history=tuple(HistoryItem(f"note {i}") for i in range(2000)))
    head_map = scored(prompter(profile=many), replace(OPTIONS, examples=6))
    assert head_map.examples == 6
    assert head_map.calibration is not None
    assert head_map.calibration.n == 4 * 6


def test_the_newest_items_are_held_out_and_those_before_them_are_scored() -> None:
    long = split_history(range(40), 12)
    assert (long.scored, long.folds) == (list(range(16, 28)), [list(range(28, 40))])
    assert long.items_each == 2
    middle = split_history(range(14), 12)
    assert (middle.scored, middle.folds) == (list(range(7)), [list(range(7, 14))])


def test_a_short_history_cross_validated() -> None:
    short = split_history(range(6), 12)
    assert short.scored == list(range(6))
    assert short.folds == [[0, 4], [1, 5], [2], [3]]
    assert short.held_out == short.scored
    assert short.items_each == 1
    assert split_history([7], 12).folds == [[7]]


@given(st.integers(1, 60), st.integers(1, 20))
def test_no_item_is_scored_and_held_out_at_once_unless_it_cross_validated(n: int, examples: int) -> None:
    split = split_history(range(n), examples)
    assert 1 <= len(split.scored) <= examples
    if split.cross_validated:
        assert set(split.held_out) == set(split.scored)
    elif n > 1:
        assert not set(split.held_out) & set(split.scored) or n < 12
        assert len(split.held_out) <= examples


# --- elimination


@given(st.integers(1, 400), st.integers(1, 40), st.integers(1, 10))
def test_fewer_and_fewer_heads_are_evaluated(n_heads: int, n_examples: int, k: int) -> None:
    sizes = schedule(n_heads, n_examples, k, exhaustive=False)
    assert len(sizes) == n_examples
    assert sizes[0] == n_heads
    assert sizes == sorted(sizes, reverse=True)
    floor = min(n_heads, max(3 * k, n_heads // 5))
    assert sizes[-1] >= min(floor, n_heads)
    budget = round(BUDGET * n_heads * n_examples)
    if n_heads + floor * (n_examples - 1) <= budget:
        assert sum(sizes) <= budget
    assert schedule(n_heads, n_examples, k, exhaustive=True) == [n_heads] * n_examples


def test_the_heads_that_are_promoted_stay_in_their_order() -> None:
    effects = HeadEffects.empty(2, 5)
    effects.with_profile[:, [0, 2, 4]] = np.array([0.1, 0.3, 0.2])[:, None]
    assert promoted(effects, "pcs", [0, 2, 4], 2) == [2, 4]
    assert promoted(effects, "gain", [0, 2, 4], 5) == [0, 2, 4]


def test_heads_that_stay_have_the_scores_of_an_exhaustive_run(prompter: Callable[..., Prompter]) -> None:
    p = prompter(profile=LONGER)
    some, all_ = scored(p), scored(p, replace(OPTIONS, exhaustive=True))
    stayed = some.counts == some.examples
    assert 0 < stayed.sum() < stayed.size
    assert some.evaluations < all_.evaluations
    for name in ("pcs", "pcs_stderr", "gain", "gain_stderr", "variance"):
        assert np.array_equal(getattr(some, name)[stayed], getattr(all_, name)[stayed])
    assert (some.counts >= 1).all()


# --- calibration


def test_what_is_held_out_of_a_long_item_is_longer_than_what_is_scored(prompter: Callable[..., Prompter]) -> None:
    history = (HistoryItem("Plum jam again, and " * 60), HistoryItem("Two jars."))
    p = prompter(profile=Profile(history=history))
    long, short = (make_example(p, i, OPTIONS) for i in (0, 1))
    assert long is not None
    assert short is not None
    words = p.answer(history[0].output)
    assert (long.text.target, long.longer.target) == (words[:12], words[:48])
    assert long.longer.prompt == long.text.prompt
    assert short.longer == replace(short.text, target=[*p.answer("Two jars."), *p.end])
    most = make_example(p, 0, replace(OPTIONS, target_tokens=100))
    assert most is not None
    assert most.longer.target == words[:128]  # as many as fit into one batch
    tight = prompter(profile=Profile(history=history[:1]), n_ctx=len(long.text.prompt) + 20)
    cramped = make_example(tight, 0, OPTIONS)
    assert cramped is not None
    assert (cramped.text, cramped.longer.target) == (long.text, words[:20])


def test_an_item_calibrates_with_heads_that_were_chosen_without_it(
    prompter: Callable[..., Prompter], monkeypatch: pytest.MonkeyPatch
) -> None:
    p = prompter(profile=replace(LONGER, history=LONGER.history[:6]))
    texts, seen = [e.longer for e in examples_of(p)], list[list[int]]()
    tried: list[tuple[ScoredText, list[int]]] = []
    of, losses = HeadEffects.of, HeldOutLosses.by_token

    def recorded_of(effects: HeadEffects, rows: Sequence[int]) -> HeadEffects:
        seen.append(list(rows))
        return of(effects, rows)

    def recorded_losses(held_out: HeldOutLosses, text: ScoredText, *rest: Any) -> NDArray[np.float64]:
        tried.append((text, seen[-1]))
        return losses(held_out, text, *rest)

    monkeypatch.setattr(HeadEffects, "of", recorded_of)
    monkeypatch.setattr(HeldOutLosses, "by_token", recorded_losses)
    head_map = scored(p, replace(OPTIONS, ablation_scale=0.5))  # with slopes, no step sees what it is tried on
    assert head_map.calibration is not None
    assert head_map.calibration.n == 6
    folds = {0: [1, 2, 3, 5], 4: [1, 2, 3, 5], 1: [0, 2, 3, 4], 5: [0, 2, 3, 4], 2: [0, 1, 3, 4, 5], 3: [0, 1, 2, 4, 5]}
    assert {texts.index(text): rows for text, rows in tried} == folds


# --- the map


def test_heads_are_chosen_by_their_lower_bound(prompter: Callable[..., Prompter]) -> None:
    head_map = scored(prompter(profile=LONGER), replace(OPTIONS, examples=7, exhaustive=True, ranking="pcs", top=18))
    n = head_map.examples
    z = head_map.pcs / head_map.pcs_stderr
    # one-sided 95 % quantile of Student's t for 6 degrees of freedom, from a printed table
    assert n == 7
    qualified = {(int(a), int(b)) for a, b in np.argwhere(z > 1.943)}
    limit = (
        head_map.calibration.best.heads
        if head_map.gamma and head_map.mode == "contrast" and head_map.calibration
        else None
    )
    assert set(head_map.selected) <= qualified
    assert limit is not None or set(head_map.selected) == qualified


def test_one_item_chooses_nothing_and_does_not_steer(prompter: Callable[..., Prompter]) -> None:
    head_map = scored(prompter(profile=Profile(history=HISTORY[2:])))
    assert (head_map.selected, head_map.gamma, head_map.calibration, head_map.reliability) == ((), 0.0, None, None)
    assert np.isnan(head_map.pcs_stderr).all()
    assert (head_map.weights == 0).all()


def test_the_map_says_what_it_was_made_from(prompter: Callable[..., Prompter]) -> None:
    p = prompter(profile=LONGER)
    head_map = scored(p, replace(OPTIONS, examples=7, seed=5))
    assert (head_map.model, head_map.architecture, head_map.fingerprint) == (p.model.name, "llama", p.model.fingerprint)
    assert (head_map.scope, head_map.seed, head_map.examples, head_map.tokens) == ("generated", 5, 7, 7 * 12)
    assert head_map.calibration is not None
    assert head_map.calibration.n == 14  # each item in turn
    assert head_map.reliability is not None


def test_a_layer_without_attention_has_no_scores(prompter: Callable[..., Prompter]) -> None:
    head_map = scored(prompter("lfm2"))
    assert head_map.unscored_layers
    for layer in head_map.unscored_layers:
        assert np.isnan(head_map.gain[layer]).all()
        assert np.isnan(head_map.weights[layer]).all()


def test_what_cannot_be_scored_is_refused(prompter: Callable[..., Prompter]) -> None:
    with pytest.raises(ModelError, match="has no attention heads to score"):
        scored(prompter("mamba"))
    with pytest.raises(ProfileError, match="the profile has no history"):
        scored(prompter(profile=Profile(preferences=("short",))))
    with pytest.raises(ProfileError, match="no history item has a token to score"):
        scored(prompter(profile=Profile(history=(HistoryItem("  "),))))


# --- whose words count

KEPT = HistoryItem("Certainly! Here is a list of ladders.", "Where is the ladder?", kind="kept")


@pytest.mark.parametrize("history", [HISTORY, LONGER.history])  # cross-validated, and with items that are held out
def test_what_a_model_wrote_is_shown_and_never_scored_or_held_out(
    history: tuple[HistoryItem, ...], prompter: Callable[..., Prompter], monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = Profile(history=tuple(item for own in history for item in (KEPT, own)))
    p = prompter(profile=profile, budget=400)
    tokens = p.answer(KEPT.output)
    texts = [text for item in history for text in (item.output, item.rejected) if text]
    own = {tuple(p.target(text, n)) for text in texts for n in (12, 48)}
    tried: list[ScoredText] = []
    read, of = HeadAblation.read, HeldOutLosses.by_token

    def recorded_read(ablation: HeadAblation, text: ScoredText) -> tuple[float, float]:
        tried.append(text)
        return read(ablation, text)

    def recorded_losses(held_out: HeldOutLosses, text: ScoredText, *rest: Any) -> NDArray[np.float64]:
        tried.append(text)
        return of(held_out, text, *rest)

    monkeypatch.setattr(HeadAblation, "read", recorded_read)
    monkeypatch.setattr(HeldOutLosses, "by_token", recorded_losses)
    slopes = OwnSlopes(p)
    scored(p)
    assert {tuple(text.target) for text in tried} <= own
    assert len({tuple(text.target[:5]) for text in tried}) == len(texts)
    assert list(slopes.texts) == list(range(1, 2 * len(history), 2))
    for text in [*tried, *slopes.texts.values()]:
        n = len(tokens)
        assert text.target[:n] != tokens
        assert any(text.prompt[i : i + n] == tokens for i in range(len(text.prompt)))


def test_a_profile_of_answers_that_were_kept_says_what_to_add(prompter: Callable[..., Prompter]) -> None:
    with pytest.raises(ProfileError, match=r"of the kind 'kept', a model's words: .* add texts of their own$"):
        scored(prompter(profile=Profile(history=(KEPT,) * 20)))


# --- taken up, never confused


class Counted:
    """Counts the texts that are read and the batches of heads that are evaluated."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.texts: list[ScoredText] = []
        self.batches = 0
        read, effects = HeadAblation.read, HeadAblation.effects

        def counted_read(ablation: HeadAblation, text: ScoredText) -> tuple[float, float]:
            self.texts.append(text)
            return read(ablation, text)

        def counted_effects(ablation: HeadAblation, heads: Sequence[Head]) -> Any:
            self.batches += 1
            return effects(ablation, heads)

        monkeypatch.setattr(HeadAblation, "read", counted_read)
        monkeypatch.setattr(HeadAblation, "effects", counted_effects)


def test_new_history_alone_is_scored(prompter: Callable[..., Prompter], monkeypatch: pytest.MonkeyPatch) -> None:
    options = replace(OPTIONS, exhaustive=True, examples=6)
    newer = replace(LONGER, history=(*LONGER.history, HistoryItem("One more jar for the road.")))
    scored(prompter(profile=LONGER), options)
    counted, notices = Counted(monkeypatch), list[str]()
    head_map = scored(prompter(profile=newer), options, notice=notices.append)
    assert len(counted.texts) == 1  # the item that was held out before, and is scored now
    assert notices == ["the profile has changed: 5 of 6 texts are known, the others are scored now"]
    assert_equal(head_map, scored(prompter(profile=newer), replace(options, resume=False)))
    assert len(counted.texts) == 1 + 6


def test_a_profile_that_was_edited_is_scored_afresh(prompter: Callable[..., Prompter]) -> None:
    scored(prompter())
    notices: list[str] = []
    scored(prompter(profile=replace(PROFILE, preferences=("long",))), notice=notices.append)
    assert notices == ["the profile has changed since it was last scored: scoring starts afresh"]


def test_what_was_measured_of_one_ada_is_not_forgotten_for_another(
    prompter: Callable[..., Prompter], tmp_path: Path
) -> None:
    made, notices = list[Prompter](), list[str]()
    for file, last in (("ada.json", "Off to the sea."), ("work/ada.json", "Dear Sir, no.")):
        items = [{"output": "Hello there."}, {"output": "Good morning."}, {"output": last}]
        (path := tmp_path / file).parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"name": "Ada", "about": last, "history": items}))
        made.append(prompter(profile=Profile.load(str(path))))
    made.append(replace(made[0], budget=24))  # other texts of the same one
    made.append(prompter(profile=replace(made[0].profile, history=made[0].profile.history[1:], path=None)))
    for p in made:
        scored(p)
    for p in made:
        scored(p, notice=notices.append)
    assert notices == [
        *["taking up an earlier run: 3 of 3 texts are known"] * 3,
        "taking up an earlier run: 2 of 2 texts are known",
    ]


class StopError(Exception):
    pass


@pytest.mark.parametrize("stop_at", [1, 20, 40, 60])
def test_an_interrupted_run_ends_as_if_it_had_not_been(
    stop_at: int, prompter: Callable[..., Prompter], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    p = prompter(profile=LONGER)
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path / "another"))
    expected = scored(p)
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path / "cache"))

    def stop(done: int, total: int) -> None:
        if total > len(LONGER.history) and done >= stop_at:  # slopes are measured before, a unit each text
            raise StopError

    with pytest.raises(StopError):
        scored(p, progress=stop)
    counted, notices = Counted(monkeypatch), list[str]()
    assert_equal(scored(p, notice=notices.append), expected)
    assert notices[0].startswith("taking up an earlier run: ")
    again = counted.batches
    assert_equal(scored(p), expected)
    assert counted.batches == again  # nothing is left to evaluate


KILLED = """
import sys
from pathlib import Path
from dps_local.scoring.options import ScoringOptions
from dps_local.engine.model import Model
from dps_local.prompting.profile import HistoryItem, Profile
from dps_local.prompting.prompt import Prompter
from dps_local.scoring.scoring import score
from dps_local.prompting.chat_template import ChatTemplate
model = Model(Path(sys.argv[1]))
history = tuple(HistoryItem(f"{i} jars of plum jam, all told, by {i}.") for i in range(1, 15))
prompter = Prompter(model, ChatTemplate(model), Profile(name="Mara", history=history), 160, 512)
score(model, prompter, ScoringOptions(target_tokens=12, n_threads=1), lambda done, _: print(done, flush=True))
"""


def test_a_run_that_is_killed_is_taken_up(
    prompter: Callable[..., Prompter], tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-P", "-c", KILLED, str(tiny_model("llama"))], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        while int(process.stdout.readline()) < 20:
            pass
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    p, notices = prompter(profile=LONGER), list[str]()
    head_map = scored(p, notice=notices.append)
    assert notices[0].startswith("taking up an earlier run: ")
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path / "another"))
    assert_equal(head_map, scored(p))


def test_runs_at_the_same_time_do_not_disturb_each_other(
    prompter: Callable[..., Prompter], cache: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prompters = [prompter(profile=LONGER) for _ in range(3)]
    head_maps: list[HeadMap] = []
    threads = [threading.Thread(target=lambda p=p: head_maps.append(scored(p))) for p in prompters]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    for thread in threads:
        thread.join()
    assert not [f for f in (cache / "scores").iterdir() if f.suffix == ".tmp"]
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path / "another"))
    expected = scored(prompters[0])
    assert len(head_maps) == 3
    for one in head_maps:
        assert_equal(one, expected)


def test_progress_ends_at_its_total(prompter: Callable[..., Prompter]) -> None:
    seen: list[tuple[int, int]] = []
    scored(prompter(profile=LONGER), replace(OPTIONS, contrast=True), progress=lambda *now: seen.append(now))
    totals = list(dict.fromkeys(total for _, total in seen))
    assert len(totals) == 2  # texts that are differentiated, and what is evaluated
    for total in totals:
        done = [n for n, of in seen if of == total]
        assert done == sorted(done)
        assert done[-1] == total


def test_lower_bounds_are_what_the_map_is_ranked_by(prompter: Callable[..., Prompter]) -> None:
    """The order of chosen heads is that of their bounds, worked out from the map's own means and errors."""
    head_map = scored(prompter(profile=LONGER), replace(OPTIONS, exhaustive=True, ranking="pcs", top=6))
    bounds = [float(head_map.pcs[h] - 1.943 * head_map.pcs_stderr[h]) for h in head_map.selected]
    assert bounds == sorted(bounds, reverse=True)
    assert lower_bound(np.zeros((2, 1))).tolist() == [0]

"""Explanations of answers, against a session that is forced along the same tokens, one step at a time."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rendered import Page, grounds, printed
from rich.cells import cell_len

from dps_local.bench.forced_sampler import ForcedSampler
from dps_local.chat.explanation import (
    MAX_AMPLIFIED_HEADS,
    AnswerStep,
    ExplainedToken,
    Explanation,
    HeadShare,
    HeadTotal,
    ReplacedToken,
    explain,
    steering_of,
)
from dps_local.chat.session import Session
from dps_local.chat.turn import Token
from dps_local.drawing.colour import DARK_RAMP, LIGHT_RAMP, TONES, colour_limit, colour_of, text_colour
from dps_local.drawing.explanation import tinted_answer, write_explanation_html
from dps_local.engine.context import KV_STEP, MAX_INVARIANT_BATCH
from dps_local.engine.model import Head, HeadScales, Model, Scope, head_mask
from dps_local.engine.sampler import Sampling
from dps_local.errors import DpsError, Remedy, SettingsError
from dps_local.maps.calibration import Mode
from dps_local.prompting.chat_template import Exchange
from dps_local.prompting.prompt import Request
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering

Open = Callable[..., Session]

NAMED_HEADS = [(0, 1), (1, 3), (2, 2), (2, 4)]  # of the tiny llama model's 3 × 6; more than one batch of streams
QUESTION = "Where is the harbour?"
# Both read with the same bits; what is left is that the session takes probabilities in single precision.
NATS = 1e-6


def weights(model: Model, heads: Sequence[Head], *values: float) -> HeadScales:
    """Scales at which an amplification with γ = 1 has the heads."""
    scales = head_mask(model, [])
    for head, value in zip(heads, values or [1.0] * len(heads), strict=True):
        scales[head] = 1 + value
    return scales


def steering(model: Model, mode: Mode, heads: Sequence[Head] = NAMED_HEADS, **options: Any) -> Steering:
    scales = head_mask(model, heads) if mode == "contrast" else weights(model, heads)
    return Steering(scales, **({"gamma": Gamma(1.0), "mode": mode} | options))


def answered(open_session: Open, mode: Mode, kind: str = "llama", *, n: int = 12, **options: Any) -> Session:
    """A chat with one steered answer; options: of the steering."""
    of_chat = {
        key: options.pop(key)
        for key in ("sampling", "chat_template", "system", "engine", "recall", "n_threads", "n_ctx")
        if key in options
    }
    session = open_session(kind, **of_chat)
    session.steering = steering(session.model, mode, **options)
    list(session.ask(QUESTION, n))
    return session


def forced(session: Session, scales: HeadScales | None) -> list[Token]:
    """The tokens of the last answer, drawn again under other scales, or under none."""
    before, sampler = session.steering, session.sampler
    assert before
    ids = [token.id for token in session.turns[-1].tokens]
    session.sampler = ForcedSampler(Sampling(temp=0), ids)
    session.steering = None if scales is None else replace(before, scales=scales)
    try:
        return list(session.regenerate(len(ids)))
    finally:
        session.steering, session.sampler = before, sampler


def logs(tokens: Sequence[Token]) -> list[float]:
    return [math.log(token.p_steered or math.nan) for token in tokens]


def shares_of(found: Explanation, head: Head) -> list[float]:
    return [share.share for token in found.tokens for share in token.heads if (share.layer, share.head) == head]


CASES = [
    pytest.param("llama", "contrast", {"beta": 0.0}, id="contrast"),
    pytest.param("llama", "contrast", {"beta": 0.1, "gamma": Gamma(2.0)}, id="contrast, masked"),
    pytest.param("llama", "contrast", {"beta": 0.0, "scope": "all"}, id="contrast of all"),
    pytest.param("llama", "contrast", {"beta": 0.0, "gamma": Gamma(entropy=True, cap=1.5)}, id="entropy"),
    pytest.param("llama", "contrast", {"beta": 0.2, "gamma": Gamma(entropy=True)}, id="entropy, masked"),
    pytest.param("gemma3", "contrast", {"beta": 0.0, "heads": [(0, 1), (2, 3)]}, id="sliding window"),
    pytest.param("lfm2", "contrast", {"beta": 0.0, "heads": [(1, 1), (1, 3)]}, id="recurrent layers"),
    pytest.param("llama", "amplify", {"gamma": Gamma(0.4)}, id="amplification"),
    pytest.param("llama", "amplify", {"gamma": Gamma(0.4), "scope": "all"}, id="amplification of all"),
]


@pytest.mark.parametrize(("kind", "mode", "options"), CASES)
def test_shifts_and_shares_are_those_of_a_session_that_is_forced_along_the_answer(
    open_session: Open, kind: str, mode: Mode, options: dict[str, Any]
) -> None:
    session = answered(open_session, mode, kind, n=10, **options)
    found = explain(session)
    heads = list(options.get("heads", NAMED_HEADS))
    scales = {head: steering(session.model, mode, [h for h in heads if h != head]).scales for head in heads}
    drawn = list(session.turns[0].tokens)
    plain = forced(session, None)
    without = {head: logs(forced(session, scales[head])) for head in heads}
    assert [(t.id, t.text) for t in found.tokens] == [(t.id, t.text) for t in drawn]
    assert [t.p_steered for t in found.tokens] == pytest.approx([t.p_steered for t in drawn], rel=NATS)
    assert [t.p_plain for t in found.tokens] == pytest.approx([t.p_steered for t in plain], rel=NATS)
    if mode == "contrast":
        assert [t.p_plain for t in found.tokens] == pytest.approx([t.p_plain for t in drawn], rel=NATS)
    steered = logs(drawn)
    allowed = [math.log(t.p_plausible) for t in found.tokens]
    shifts = np.subtract(steered, logs(plain)) + allowed
    assert [t.shift for t in found.tokens] == pytest.approx(shifts.tolist(), abs=NATS)
    assert set(found.heads) == set(heads)
    for head in heads:
        assert shares_of(found, head) == pytest.approx(np.subtract(steered, without[head]).tolist(), abs=NATS)
    assert np.abs(shifts).max() > 0.01  # the heads do something


@pytest.mark.parametrize("scope", ["generated", "all"])
@pytest.mark.parametrize("mode", ["contrast", "amplify"])
def test_heads_that_stay_as_they_are_shift_nothing(open_session: Open, mode: Mode, scope: Scope) -> None:
    session = answered(open_session, mode, scope=scope, n=MAX_INVARIANT_BATCH + 5)
    assert session.steering
    session.steering = replace(session.steering, scales=np.ones_like(session.steering.scales))
    found = explain(session)
    assert len(found.tokens) == MAX_INVARIANT_BATCH + 5
    assert {token.shift for token in found.tokens} == {0.0}
    assert {(token.replaced, token.heads) for token in found.tokens} == {(None, ())}


@pytest.mark.parametrize("mode", ["contrast", "amplify"])
def test_the_share_of_a_single_head_is_the_shift(open_session: Open, mode: Mode) -> None:
    found = explain(answered(open_session, mode, heads=[(1, 3)]))
    assert [token.heads for token in found.tokens] == [(HeadShare(1, 3, token.shift),) for token in found.tokens]
    assert any(token.shift for token in found.tokens)


@pytest.mark.parametrize("mode", ["contrast", "amplify"])
def test_a_token_replaces_what_the_plain_model_would_have_said(open_session: Open, mode: Mode) -> None:
    gamma = Gamma(3.0) if mode == "contrast" else Gamma(0.8)
    session = answered(open_session, mode, gamma=gamma, beta=0.0, n=24)
    found = explain(session)
    plain = plain_choices(session)
    for token, likeliest in zip(found.tokens, plain, strict=True):  # greedy: the steered model's choice is the token
        replaced = token.replaced
        assert (replaced is None) == (likeliest == token.id)
        if replaced:
            assert replaced.id == likeliest
            assert replaced.p_plain >= token.p_plain
            assert replaced.p_steered <= token.p_steered
            text = session.model.detokenize([likeliest]) or session.model.token_text(likeliest)
            assert replaced.text == text != ""
    assert {token.replaced is None for token in found.tokens} == {True, False}


def test_an_end_that_was_replaced_has_its_name(open_session: Open) -> None:
    model = open_session().model
    token = Token(65, None, None, 0.0, "A")
    full, muted = np.zeros((2, model.n_vocab), np.float32)
    full[model.eos], full[65] = 2, 1  # f + (f - m) is 1 and 2
    muted[model.eos] = 3
    step = AnswerStep(token, full, steering(model, "contrast"))
    found = step.explained(muted, model).replaced
    assert found
    assert (found.id, found.text) == (model.eos, "<|im_end|>")
    assert found.p_steered == pytest.approx(math.e / (math.e + math.e**2 + (model.n_vocab - 2)), rel=1e-6)


def plain_choices(session: Session) -> list[int]:
    """The plain model's most likely token at each step of the answer."""
    stream, turn = session.full, session.turns[0]
    stream.clear()
    stream.replay([turn.pending[:-1]])
    ids = [turn.pending[-1], *(token.id for token in turn.tokens)]
    return [int(stream.decode([token], 1)[0].argmax()) for token in ids[:-1]]


def test_the_plain_choice_that_was_drawn_after_all_replaces_nothing(open_session: Open) -> None:
    session = open_session()
    session.steering = steering(session.model, "contrast", gamma=Gamma(3.0), beta=0.0)
    plain = Session(session.model, session.template, sampling=Sampling(temp=0), n_ctx=256, n_threads=1)
    ids = [token.id for token in plain.ask(QUESTION, 16)]
    session.sampler = ForcedSampler(Sampling(temp=0), ids)
    list(session.ask(QUESTION, 16))
    assert session.sampler.margins
    assert {token.replaced for token in explain(session).tokens} == {None}
    plain.close()


def test_drawn_tokens_are_explained_whatever_rounding_makes_of_the_mask(open_session: Open) -> None:
    session = answered(open_session, "contrast", n=12)
    assert session.steering
    session.steering = replace(session.steering, beta=1.0)  # the best token alone is plausible, beside the drawn one
    for token in explain(session).tokens:
        assert math.isfinite(token.shift)
        assert 0 < token.p_plain <= token.p_plausible <= 1


def test_a_token_that_a_stop_text_cut_is_explained_as_it_was_drawn(open_session: Open) -> None:
    session = open_session(chat_template=None)
    session.template.stop = ("e",)
    session.steering = steering(session.model, "contrast", beta=0.0)
    ids = session.model.tokenize("on the", special=False)
    session.sampler = ForcedSampler(Sampling(temp=0), ids)
    drawn = list(session.ask(QUESTION, len(ids)))
    assert session.turns[0].tail == session.model.tokenize(" th", special=False)
    found = explain(session)
    assert [(t.id, t.text) for t in found.tokens] == [(t.id, t.text) for t in drawn]
    assert "".join(t.text for t in found.tokens) == "on th"
    assert found.tokens[-1].p_steered == pytest.approx(drawn[-1].p_steered, rel=NATS)


def test_what_was_recalled_and_a_system_message_are_part_of_the_prompt(open_session: Open) -> None:
    session = answered(
        open_session,
        "contrast",
        system="Be brief.",
        recall=lambda question, _: Request(f"Mind the tide. {question}", [Exchange("Tide?", "Ebb.")], [1]),
        beta=0.0,
    )
    drawn, found = session.turns[0].tokens, explain(session)
    assert [t.p_plain for t in found.tokens] == pytest.approx([t.p_plain for t in drawn], rel=NATS)
    assert found.question == QUESTION


@pytest.mark.parametrize("engine", ["eager", "speculative"])
@pytest.mark.parametrize("n_threads", [1, 2])
def test_both_engines_are_explained_to_the_bit(open_session: Open, engine: str, n_threads: int) -> None:
    options: dict[str, Any] = {
        "engine": engine,
        "n_threads": n_threads,
        "n_ctx": 1024,
        "sampling": Sampling(temp=1.0, seed=7),
    }
    session = answered(open_session, "contrast", system="Be brief. " * 46, n=40, **options)
    turn, found = session.turns[0], explain(session)
    assert turn.answer < 2 * KV_STEP < turn.answer + len(turn.tokens)
    assert [t.p_plain for t in found.tokens] == [t.p_plain for t in turn.tokens]
    assert [t.p_steered for t in found.tokens] == pytest.approx([t.p_steered for t in turn.tokens], rel=NATS)


def test_a_later_answer_is_explained_too(open_session: Open) -> None:
    session = answered(open_session, "contrast", n=5)
    list(session.ask("And the tide?", 7))
    found = explain(session)
    assert found.question == "And the tide?"
    assert [t.p_plain for t in found.tokens] == [t.p_plain for t in session.turns[1].tokens]
    assert logs(session.turns[1].tokens) == pytest.approx([math.log(t.p_steered) for t in found.tokens], abs=NATS)


def test_heads_come_with_the_largest_share_first(open_session: Open) -> None:
    found = explain(answered(open_session, "contrast"))
    for token in found.tokens:
        sizes = [abs(share.share) for share in token.heads]
        assert sizes == sorted(sizes, reverse=True)
        assert len(sizes) == len(NAMED_HEADS)


def test_of_an_amplification_only_the_heads_of_largest_weight_are_left_out(open_session: Open) -> None:
    session = answered(open_session, "amplify", heads=NAMED_HEADS[:1], n=3)
    all_heads = session.model.heads()
    assert len(all_heads) > MAX_AMPLIFIED_HEADS
    values = [0.01 * (i + 1) * (-1) ** i for i in range(len(all_heads))]
    assert session.steering
    session.steering = replace(session.steering, scales=weights(session.model, all_heads, *values))
    found = explain(session)
    assert found.heads == tuple(reversed(all_heads[-MAX_AMPLIFIED_HEADS:]))
    assert found.steered == len(all_heads) == 18
    session.steering = replace(session.steering, mode="contrast")
    assert len(explain(session).heads) == 18


def test_totals_add_up_what_each_head_did() -> None:
    one, two = (HeadShare(0, 1, 0.5), HeadShare(2, 3, -0.25)), (HeadShare(0, 1, -0.5), HeadShare(2, 3, -1.0))
    token = example().tokens[0]
    found = replace(example(), heads=((0, 1), (2, 3)), tokens=(replace(token, heads=one), replace(token, heads=two)))
    assert found.totals() == [HeadTotal(2, 3, 1.25, -1.25), HeadTotal(0, 1, 1.0, 0.0)]


def test_an_empty_answer_has_nothing_to_explain(open_session: Open) -> None:
    session = answered(open_session, "contrast", n=0)
    assert explain(session).tokens == ()


def test_without_steering_it_is_said_what_to_do(open_session: Open) -> None:
    session = answered(open_session, "contrast", n=2)
    for none in (None, steering(session.model, "contrast", gamma=Gamma(0.0))):
        session.steering = none
        for call in (steering_of, explain):
            with pytest.raises(SettingsError, match="nothing steers the answer") as info:
                call(session)
            assert info.value.remedy is Remedy.STEER
    session.steering = replace(steering(session.model, "contrast"), mode="cad")
    with pytest.raises(DpsError, match="steer by a contrast"):
        explain(session)


def test_an_explanation_can_be_interrupted(open_session: Open) -> None:
    session = answered(open_session, "contrast", n=MAX_INVARIANT_BATCH + 2)
    calls: list[int] = []

    def interrupt(done: int, _: int) -> None:
        calls.append(done)
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explain(session, interrupt)
    assert calls == [1, 2, 3]
    assert len(explain(session).tokens) == MAX_INVARIANT_BATCH + 2


def test_progress_ends_when_all_is_done(open_session: Open) -> None:
    calls: list[tuple[int, int]] = []
    explain(answered(open_session, "contrast", n=5), lambda done, total: calls.append((done, total)))
    assert calls == [(i, 25) for i in range(1, 26)]  # with four heads, and without each


# --- in the terminal


def example(**changes: Any) -> Explanation:
    """Six tokens of an answer by hand; two heads."""
    dinner = ReplacedToken(7, " dinner", 0.36, 0.2)
    end = ReplacedToken(8, "<|im_end|>", 0.6, 0.3)
    tokens = (
        ExplainedToken(1, "Come", 0.45, 0.9, 0.5, 0.0, None, (HeadShare(2, 3, 0.25), HeadShare(0, 1, -0.25))),
        ExplainedToken(2, " to-day", 0.09, 0.9, 0.4, 1.386, dinner, (HeadShare(0, 1, 1.5), HeadShare(2, 3, -0.125))),
        ExplainedToken(3, "\n\n", 0.5, 1.0, 0.25, -0.693, end, (HeadShare(0, 1, -0.5), HeadShare(2, 3, 0.0))),
        ExplainedToken(4, " ", 0.0001, 1.0, 0.0002, 0.693, None, (HeadShare(0, 1, 0.5), HeadShare(2, 3, 0.5))),
        ExplainedToken(5, "<b>\x1b[31m", 0.9, 1.0, 0.8, -0.118, None, (HeadShare(2, 3, -0.118), HeadShare(0, 1, 0.0))),
        ExplainedToken(6, "", 1.0, 1.0, 1.0, 0.0, None, (HeadShare(2, 3, 0.0), HeadShare(0, 1, 0.0))),
    )
    return replace(Explanation("Tiny", "Who?", "contrast", "0.5", 0.1, 2, ((0, 1), (2, 3)), tokens), **changes)


def test_an_answer_without_colour_has_marks_and_a_table() -> None:
    assert [line.rstrip(" ─") for line in printed(tinted_answer(example())).splitlines()] == [
        "contrast with 2 muted heads, γ = 0.5, β = 0.1",
        "",
        "Come[++ to-day][-↵",
        "↵]",
        "[+␣]<b>�[31m",
        "",
        "[+likelier with steering] by over 0.44 nats, [++likelier] by over 0.88,",
        "[-less likely], [--less likely]; ↵ line end, ␣ space",
        "probabilities among the tokens that β = 0.1 leaves",
        "a head's number: the part of the shift that goes when it alone is left out",
        "",
        " #  token      shift    plain  steered  instead of  heads",
        "",
        " 2  ␣to-day   +1.386   10.0 %   40.0 %  ␣dinner     L0H1 +1.500, L2H3 -0.125",
        " 3  ↵↵        -0.693   50.0 %   25.0 %  <|im_end|>  L0H1 -0.500, L2H3 +0.000",
        " 4  ␣         +0.693  < 0.1 %  < 0.1 %              L0H1 +0.500, L2H3 +0.500",
        " 5  <b>�[31m  -0.118   90.0 %   80.0 %              L2H3 -0.118, L0H1 +0.000",
        "",
        "",
        " head  moved in total, nats     net",
        "",
        " L0H1                 2.750  +1.250",
        " L2H3                 0.993  +0.507",
        "",
    ]


def test_an_answer_in_colour_has_a_ground_for_each_token() -> None:
    limit = colour_limit(np.array([token.shift for token in example().tokens]))
    lines = grounds(tinted_answer(example()))
    assert limit < 1.386  # the scale ends at the 98th percentile
    assert lines[2] == [colour_of(0), colour_of(1), colour_of(-0.693 / limit)]
    assert lines[3] == [colour_of(-0.693 / limit)]
    assert lines[4] == [colour_of(0.693 / limit), colour_of(-0.118 / limit)]
    drawn = printed(tinted_answer(example()), colour="truecolor")
    assert "[+" not in re.sub(r"\x1b\[[0-9;]*m", "", drawn)
    assert re.search(r"\x1b\[4;[0-9;]*m to-day", drawn)  # underlined, as it replaces another
    assert not re.search(r"\x1b\[4;[0-9;]*mCome", drawn)


def test_what_may_be_rounding_stays_pale() -> None:
    token = replace(example().tokens[0], shift=0.02)
    assert grounds(tinted_answer(example(tokens=(token,))))[2] == [colour_of(0.2)]
    assert "Come\n" in printed(tinted_answer(example(tokens=(token,))))


def test_a_terminal_of_sixteen_colours_gets_marks() -> None:
    assert "[++ to-day]" in re.sub(r"\x1b\[[0-9;]*m", "", printed(tinted_answer(example()), colour="standard"))


def test_a_console_that_knows_only_ascii_gets_only_ascii() -> None:
    text = printed(tinted_answer(example()), code="ascii")
    assert "gamma = 0.5, beta = 0.1" in text
    assert "Come[++ to-day][-$\n$]\n[+_]<b>?[31m\n" in text
    assert "$ line end, _ space" in text


@given(st.lists(st.text(max_size=40), max_size=12), st.sampled_from(["utf8", "ascii"]))
def test_whatever_a_model_says_fits_the_console_and_cannot_control_it(texts: list[str], code: str) -> None:
    token = example().tokens[1]
    tokens = tuple(replace(token, text=text, replaced=ReplacedToken(7, text, 0.3, 0.2)) for text in texts)
    text = printed(tinted_answer(example(tokens=tokens)), code=code)
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert max(map(cell_len, text.splitlines())) <= 80


@pytest.mark.parametrize(("width", "heads"), [(100, 2), (80, 2), (70, 1), (50, 0)])
def test_a_narrow_table_names_fewer_heads(width: int, heads: int) -> None:
    lines = printed(tinted_answer(example()), width).splitlines()
    (row,) = (line for line in lines if "+1.386" in line)
    assert (row.count("L0H1"), row.count("L2H3")) == (int(heads > 0), int(heads > 1))
    assert len(row) <= width


def test_what_is_said_of_an_amplification() -> None:
    said = printed(tinted_answer(example(mode="amplify", beta=0.0, steered=270)))
    assert "270 amplified heads, γ = 0.5; shares of the 2 with the largest weights" in said
    assert "β" not in said


@pytest.mark.parametrize("tokens", [(), example().tokens[:1]])
def test_an_answer_that_was_not_moved_can_be_drawn(tokens: tuple[ExplainedToken, ...], tmp_path: Path) -> None:
    assert "no token was moved" in printed(tinted_answer(example(tokens=tokens)))
    assert Page(page_of(example(tokens=tokens), tmp_path)).open == []


# --- as a page


def page_of(explanation: Explanation, folder: Path) -> str:
    write_explanation_html(explanation, folder / "answer.html")
    return (folder / "answer.html").read_text(encoding="utf-8")


def test_the_page_needs_nothing_from_outside_and_no_script(tmp_path: Path) -> None:
    page = Page(page_of(example(), tmp_path))
    assert page.open == []
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert not {"src", "href"} & {name for name, _ in page.attributes}
    html = page_of(example(), tmp_path)
    assert all(word not in html for word in ("http", "url(", "@import", "{%", "{{"))
    assert "prefers-color-scheme: dark" in html
    assert (tmp_path / "answer.html").stat().st_mode & 0o777 == 0o600


def test_the_page_tints_each_token_and_tells_of_it(tmp_path: Path) -> None:
    html = page_of(example(), tmp_path)
    spans = re.findall(r'<span class="(c[^"]*)" title="([^"]*)">([^<]*)</span>', html)
    assert [(kind, text) for kind, _, text in spans] == [
        ("c10", "Come"),
        ("c20 other", " to-day"),
        ("c5 other", "↵\n↵\n"),
        ("c15", "␣"),
        ("c9", "&lt;b&gt;�[31m"),
        ("c10", ""),
    ]
    assert spans[1][1].split("; ") == [
        "␣to-day: shift +1.386, 10.0 % → 40.0 %",
        "instead of ␣dinner, 40.0 % → 20.0 %",
        "L0H1 +1.500, L2H3 \N{MINUS SIGN}0.125",
    ]
    assert html.count("␣dinner</td>") == 2  # among the most moved, and in order


def test_texts_of_models_and_people_are_text_and_nothing_else(tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>\x1b\"'"
    token = replace(example().tokens[1], text=bad, replaced=ReplacedToken(7, bad, 0.3, 0.2))
    html = page_of(example(model=bad, question=bad, tokens=(token,)), tmp_path)
    page = Page(html)
    assert "script" not in page.tags
    assert "\x1b" not in html
    assert "onclick" not in {name for name, _ in page.attributes}
    assert "<script>alert(1)</script>\N{REPLACEMENT CHARACTER}\"'" in page.words


def test_the_page_holds_what_each_head_did(tmp_path: Path) -> None:
    html = page_of(example(), tmp_path)
    assert "<tr><td>0</td><td>1</td><td>2.750</td><td>+1.250</td></tr>" in html
    assert "<tr><td>2</td><td>3</td><td>0.993</td><td>+0.507</td></tr>" in html


@pytest.mark.parametrize("ramp", [LIGHT_RAMP, DARK_RAMP])
def test_text_is_told_from_every_ground(ramp: Sequence[str]) -> None:
    for tone in TONES:
        ground = colour_of(tone, ramp)
        dark, light = sorted([luminance(ground), luminance(text_colour(ground))])
        assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG AA


def luminance(colour: str) -> float:
    channels = [byte / 255 for byte in bytes.fromhex(colour[1:])]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

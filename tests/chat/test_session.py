from __future__ import annotations

import gc
import math
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from decoded import Decoded, spy
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from opened import shared
from tiny import TinyModel

from dps_local.chat.session import Session
from dps_local.chat.turn import Token
from dps_local.engine.context import N_UBATCH, Context, Logits, Run
from dps_local.engine.model import HeadScales, Model, Scope, head_mask
from dps_local.engine.sampler import Sampling
from dps_local.engine.stream import Stream
from dps_local.errors import ContextFullError, DpsError, NativeError, Remedy
from dps_local.prompting.chat_template import ChatTemplate
from dps_local.steering import contrast, decoding, speculative
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering

GREEDY = Sampling(temp=0)
SCOPES: tuple[Scope, ...] = ("generated", "all")
HEADS = [(0, 1), (1, 0), (1, 3), (2, 2)]  # of the tiny llama model's 3 × 6
N_CTX = 256  # llama.cpp rounds a smaller one up to this
QUESTIONS = ["Where is the harbour?", "And the tide?", "Who said so?", "Why, then?", "Is that all?"]

Open = Callable[..., Session]


@pytest.fixture
def llama(tiny_model: TinyModel) -> Model:
    return shared(tiny_model())


@dataclass(frozen=True)
class Call:
    context: Context
    start: int
    tokens: list[int]
    logits: Logits


@pytest.fixture
def tape(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    """Every call of Context.decode, with what it returned."""
    calls: list[Call] = []
    original = Context.decode

    def decode(self: Context, runs: Sequence[Run]) -> Logits:
        (run,) = runs
        logits: Logits = original(self, runs)
        calls.append(Call(self, run.start, list(run.tokens), logits.copy()))
        return logits

    monkeypatch.setattr(Context, "decode", decode)
    return calls


class Script:
    """A sampler that draws the tokens it was given."""

    def __init__(self, tokens: Iterable[int]) -> None:
        self.tokens = iter(tokens)

    def sample(self, *_: Any) -> int:
        return next(self.tokens)

    sample_last = sample

    def allowed(self, logits: Logits) -> Logits:
        return logits

    def accept(self, tokens: Iterable[int]) -> None:
        pass

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


def script(session: Session, *tokens: str | int) -> None:
    """Let the model answer with these texts, byte by byte, and tokens."""
    ids = [n for t in tokens for n in (t.encode() if isinstance(t, str) else [t])]  # a byte's token is its number
    session.sampler = Script(ids)  # type: ignore[assignment]


def ids(tokens: Iterable[Token]) -> list[int]:
    return [t.id for t in tokens]


def fed(stream: Stream) -> list[int]:
    """Return the tokens in a stream's KV cache."""
    return [t for call in stream.calls for t in call]


def written(session: Session) -> str:
    return "".join(session.model.token_text(t) if t > 270 else session.model.detokenize([t]) for t in fed(session.full))


def muted_stream(session: Session) -> Stream:
    assert session.streams.muted is not None
    return session.streams.muted


def null(model: Model, gamma: float = 5.0, scope: Scope = "generated") -> Steering:
    """Steering by heads that are not changed at all; any token may be drawn."""
    return Steering(np.ones((model.n_layer, model.n_head_max), np.float32), Gamma(gamma), beta=0.0, scope=scope)


def muting(model: Model, gamma: float = 2.0, beta: float = 0.1, scope: Scope = "generated") -> Steering:
    return Steering(head_mask(model, HEADS), Gamma(gamma), beta, scope)


def chat(session: Session, questions: Sequence[str] = QUESTIONS, n: int = 6) -> list[list[Token]]:
    return [list(session.ask(question, n)) for question in questions]


def prompt(question: str) -> str:
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


class Reader:
    """A context of its own, read without Session: the oracle."""

    def __init__(self, model: Model, n_ctx: int = N_CTX) -> None:
        self.model, self.context, self.n = model, Context(model, n_ctx, n_threads=1), 0

    def read(self, tokens: Sequence[int]) -> Logits:
        logits: Logits = self.context.decode([Run(0, self.n, tokens, 1)])[0].copy()
        self.n += len(tokens)
        return logits

    def prompt(self, tokens: Sequence[int]) -> Logits:
        """Read a prompt as a prompt is read: its last token goes with the answer."""
        self.context.decode([Run(0, self.n, tokens[:-1])])
        self.n += len(tokens) - 1
        return self.read(tokens[-1:])

    def answer(self, tokens: Sequence[int], n: int) -> list[int]:
        """Return n greedy tokens, or fewer when the model ends; the last one is not read."""
        logits, answer = self.prompt(tokens), list[int]()
        while not self.model.is_eog(token := int(logits.argmax())):
            answer.append(token)
            if len(answer) == n:
                break
            logits = self.read([token])
        return answer


def softmax(logits: Logits) -> NDArray[np.float64]:
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(weights / weights.sum())


# --- without steering


@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3", "lfm2", "mamba"])
def test_an_unsteered_chat_is_greedy_decoding_token_for_token(open_session: Open, kind: str) -> None:
    session = open_session(kind)
    reader = Reader(session.model)
    undecoded: list[int] = []
    before = ""
    for question in QUESTIONS[:3]:
        tokens = undecoded + session.model.tokenize(before + prompt(question), special=True)
        expected = reader.answer(tokens, 8)
        assert ids(session.ask(question, 8)) == expected
        assert len(expected) > 1
        undecoded, before = expected[-1:] if len(expected) == 8 else [], "<|im_end|>\n"


@pytest.mark.parametrize("scope", SCOPES)
def test_gamma_zero_is_the_plain_chat_and_makes_no_second_context(open_session: Open, scope: Scope) -> None:
    plain = open_session()
    steered = open_session(steering=muting(plain.model, gamma=0.0, scope=scope))
    assert chat(steered) == chat(plain)
    assert steered.streams.muted is None
    assert all(t.p_muted is None and t.p_steered == t.p_plain for turn in steered.turns for t in turn.tokens)


def test_probabilities_are_those_of_the_model(open_session: Open) -> None:
    session = open_session()
    reader = Reader(session.model)
    logits = reader.prompt(session.model.tokenize(prompt("Why?"), special=True))
    for token in session.ask("Why?", 6):
        assert token.p_plain == pytest.approx(softmax(logits)[token.id], abs=1e-6)
        logits = reader.read([token.id])


@pytest.mark.parametrize(
    ("mode", "engine", "said"),
    [
        (None, "speculative", {"p_plain", "p_steered"}),
        ("amplify", "speculative", {"p_steered"}),
        ("contrast", "eager", {"p_plain", "p_muted", "p_steered"}),
        ("cad", "eager", {"p_plain", "p_muted", "p_steered"}),
        ("contrast", "speculative", {"p_plain", "p_steered"}),
    ],
)
def test_probabilities_are_computed_where_they_are_asked_for(
    open_session: Open, monkeypatch: pytest.MonkeyPatch, mode: Any, engine: str, said: set[str]
) -> None:
    def answer(probs: bool) -> list[Token]:
        session = open_session(engine=engine, probs=probs, system="Be brief.")
        session.steering = replace(muting(session.model), mode=mode) if mode else None
        return list(session.ask("Where to?", 12))

    asked = answer(True)
    for name in ("p_plain", "p_muted", "p_steered"):
        assert {getattr(token, name) is not None for token in asked} == {name in said}
    for module in (contrast, decoding, speculative):
        monkeypatch.setattr(module, "probabilities", None)
    assert answer(False) == [
        replace(token, p_plain=None, p_muted=None, p_steered=None, p_plausible=None) for token in asked
    ]


def test_the_system_message_stands_before_the_first_question_only(open_session: Open) -> None:
    session = open_session(system="Be brief.")
    script(session, "Yes", 273, "No", 273)
    list(session.ask("One?"))
    list(session.ask("Two?"))
    assert written(session) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nOne?<|im_end|>\n<|im_start|>assistant\nYes"
        "<|im_end|>\n<|im_start|>user\nTwo?<|im_end|>\n<|im_start|>assistant\nNo"
    )


def test_equal_seeds_give_equal_chats_and_other_seeds_others(open_session: Open) -> None:
    def answers(seed: int) -> list[list[int]]:
        session = open_session(sampling=Sampling(temp=2, top_k=0, top_p=1, min_p=0, seed=seed))
        return [ids(answer) for answer in chat(session, n=10)]

    assert answers(1) == answers(1)
    assert answers(1) != answers(2)


def test_two_chats_with_one_model_do_not_touch_each_other(open_session: Open) -> None:
    alone = [ids(answer) for answer in chat(open_session())]
    one, other = open_session(), open_session()
    found = []
    for question in QUESTIONS:
        found.append(ids(one.ask(question, 6)))
        list(other.ask(question.upper(), 3))
    assert found == alone


# --- steering


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3", "gemma4", "deci", "deepseek2", "lfm2"])
def test_heads_that_are_not_changed_contrast_to_exactly_nothing(open_session: Open, kind: str, scope: Scope) -> None:
    plain = open_session(kind)
    steered = open_session(kind, steering=null(plain.model, scope=scope))
    for one, other in zip(chat(plain), chat(steered), strict=True):
        assert ids(one) == ids(other)
        assert [t.p_plain for t in one] == [t.p_plain for t in other]
        assert [t.p_muted for t in other] == [t.p_plain for t in other]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("gammas", [[0, 1, 0, 1, 1], [1, 0, 0, 1, 0], [0, 0, 1, 0, 1]])
def test_changing_gamma_between_turns_keeps_the_streams_in_step(
    open_session: Open, scope: Scope, gammas: list[int]
) -> None:
    plain = open_session()
    steered = open_session(steering=null(plain.model, scope=scope))
    for question, gamma in zip(QUESTIONS, gammas, strict=True):
        steered.steering = null(plain.model, gamma, scope)
        expected, found = list(plain.ask(question, 6)), list(steered.ask(question, 6))
        assert ids(found) == ids(expected)
        assert [t.p_muted for t in found] == [t.p_plain if gamma else None for t in expected]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(("gamma", "beta"), [(2.0, 0.1), (2.0, 0.0), (-1.0, 0.3)])
def test_steering_is_the_formula_over_two_streams(
    open_session: Open, llama: Model, scope: Scope, gamma: float, beta: float
) -> None:
    session = open_session(steering=muting(llama, gamma, beta, scope))
    tokens = llama.tokenize(prompt("Where to?"), special=True)
    full, muted = Reader(llama), Reader(llama)
    if scope == "all":
        muted.context.set_head_scales(0, head_mask(llama, HEADS))
    for reader in (full, muted):
        reader.context.decode([Run(0, 0, tokens[:-1])])
        reader.n = len(tokens) - 1
    muted.context.set_head_scales(0, head_mask(llama, HEADS))
    token = tokens[-1]
    for found in session.ask("Where to?", 12):
        f, m = full.read([token]), muted.read([token])
        steered = softmax((1 + gamma) * f - gamma * m)
        steered[softmax(f) < beta * softmax(f).max()] = 0
        steered /= steered.sum()
        token = int(steered.argmax())
        assert found.id == token
        assert found.p_plain == pytest.approx(softmax(f)[token], abs=1e-6)
        assert found.p_muted == pytest.approx(softmax(m)[token], abs=1e-6)
        assert found.p_steered == pytest.approx(steered[token], abs=1e-5)


@pytest.mark.parametrize("scope", SCOPES)
def test_muted_heads_change_the_answer(open_session: Open, scope: Scope) -> None:
    plain = open_session()
    steered = open_session(steering=muting(plain.model, 3.0, 0.0, scope))
    before, after = list(plain.ask("Where to?", 20)), list(steered.ask("Where to?", 20))
    assert ids(before) != ids(after)
    assert all(t.p_muted != t.p_plain for t in after)


def test_the_scopes_differ(open_session: Open, llama: Model) -> None:
    chats = [chat(open_session(steering=muting(llama, scope=scope))) for scope in SCOPES]
    assert [t.p_muted for t in chats[0][0]] != [t.p_muted for t in chats[1][0]]


def test_gamma_can_follow_the_entropy_of_each_step(open_session: Open, llama: Model) -> None:
    steering = replace(muting(llama, beta=0.0), gamma=Gamma(entropy=True, normalised=True))
    tokens = llama.tokenize(prompt("Where to?"), special=True)
    full, muted = Reader(llama), Reader(llama)
    f = full.prompt(tokens)
    muted.context.decode([Run(0, 0, tokens[:-1])])
    muted.n = len(tokens) - 1
    muted.context.set_head_scales(0, steering.scales)
    m = muted.read(tokens[-1:])
    p = softmax(f)
    gamma = -float((p * np.log(p)).sum()) / math.log(len(p))
    (token,) = open_session(steering=steering).ask("Where to?", 1)
    expected = softmax((1 + gamma) * f - gamma * m)
    assert token.id == int(expected.argmax())
    assert token.p_steered == pytest.approx(expected.max(), abs=1e-5)


def test_generated_scope_copies_the_prompt_of_the_full_stream(
    open_session: Open, llama: Model, tape: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(steering=muting(llama))
    sync, synced = session.streams.sync, list[tuple[bool, bool]]()

    def spy(*arguments: Any) -> Any:
        found = sync(*arguments)
        muted = muted_stream(session)
        synced.append((muted.context.state() == session.full.context.state(), muted.calls == session.full.calls))
        return found

    monkeypatch.setattr(session.streams, "sync", spy)
    chat(session, QUESTIONS[:3], 5)
    assert synced == [(True, True)] * 3
    muted = [call for call in tape if call.context is muted_stream(session).context]
    assert [len(call.tokens) for call in muted] == [1] * 15  # the last prompt token and the answer, each turn
    assert muted_stream(session).context.state() != session.full.context.state()


def test_all_scope_reads_every_token_with_muted_heads(open_session: Open, llama: Model, tape: list[Call]) -> None:
    session = open_session(steering=muting(llama, scope="all"))
    chat(session, QUESTIONS[:3], 5)
    muted = [call for call in tape if call.context is muted_stream(session).context]
    calls = session.full.calls
    assert [call.tokens for call in muted] == calls
    other = Context(llama, N_CTX, n_threads=1)
    other.set_head_scales(0, head_mask(llama, HEADS))
    start = 0
    for call in muted:
        logits = other.decode([Run(0, start, call.tokens, len(call.logits))])
        assert np.array_equal(logits, call.logits)
        start += len(call.tokens)


@pytest.mark.parametrize("scope", [None, *SCOPES])
def test_no_token_is_read_twice(open_session: Open, llama: Model, tape: list[Call], scope: Scope | None) -> None:
    session = open_session(steering=muting(llama, scope=scope) if scope else None)
    chat(session, QUESTIONS[:4], 5)
    conversation = ""
    for turn in session.turns:
        conversation += prompt(turn.user) + turn.text + "<|im_end|>\n"
    expected = llama.tokenize(conversation.removesuffix("<|im_end|>\n"), special=True)

    def places(context: Context) -> list[int]:
        return [call.start + i for call in tape if call.context is context for i in range(len(call.tokens))]

    assert places(session.full.context) == list(range(session.full.n))
    assert session.full.n == len(fed(session.full)) <= len(expected)
    if scope == "all":
        assert places(muted_stream(session).context) == list(range(session.full.n))
    if scope == "generated":  # the last token of each prompt, and all but the last of each answer
        assert len(places(muted_stream(session).context)) == sum(len(turn.tokens) for turn in session.turns)


@pytest.mark.parametrize("scope", SCOPES)
def test_other_heads_from_one_turn_to_the_next_mute_all_that_they_should(
    open_session: Open, llama: Model, scope: Scope
) -> None:
    other = replace(muting(llama, scope=scope), scales=head_mask(llama, [(0, 5), (2, 0)]))
    session = open_session(steering=muting(llama, 0.0001, scope=scope))
    list(session.ask("Where to?", 5))
    session.steering = other
    found = [t.p_muted for t in session.ask("And then?", 5)]
    fresh = open_session(steering=replace(other, gamma=Gamma(0)))
    list(fresh.ask("Where to?", 5))
    assert session.turns[0].tokens[-1].id == fresh.turns[0].tokens[-1].id
    fresh.steering = other
    assert found == [t.p_muted for t in fresh.ask("And then?", 5)]


def test_another_scope_from_one_turn_to_the_next_reads_the_chat_anew(open_session: Open, llama: Model) -> None:
    session = open_session(steering=muting(llama, 0.0001, scope="generated"))
    list(session.ask("Where to?", 5))
    session.steering = muting(llama, scope="all")
    found = [t.p_muted for t in session.ask("And then?", 5)]
    fresh = open_session(steering=muting(llama, 0.0001, scope="all"))
    list(fresh.ask("Where to?", 5))
    fresh.steering = muting(llama, scope="all")
    assert found == [t.p_muted for t in fresh.ask("And then?", 5)]


# --- amplifying heads in the one stream


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> list[Decoded]:
    """Every call of Context.decode, with the scales that were set."""
    return spy(monkeypatch)


def weighted(model: Model) -> HeadScales:
    """Scales at γ = 1: some heads louder, some softer."""
    scales = np.ones((model.n_layer, model.n_head_max), np.float32)
    scales[0, 1], scales[1, 0], scales[1, 3], scales[2, 2] = 2, 0.25, 1.5, 0
    return scales


def amplifying(model: Model, gamma: float = 0.5, scope: Scope = "generated") -> Steering:
    return Steering(weighted(model), Gamma(gamma), scope=scope, mode="amplify")


def by_hand(model: Model, calls: Sequence[Sequence[int]], scaled: Sequence[HeadScales | None]) -> Reader:
    """A context that made these calls, each with its own scales."""
    reader = Reader(model)
    for tokens, scales in zip(calls, scaled, strict=True):
        reader.context.set_head_scales(0, scales)
        reader.read(tokens)
    return reader


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("gamma", [0.5, -1.0, 1.0])
def test_amplified_answers_are_those_of_a_context_with_these_scales(
    open_session: Open, llama: Model, scope: Scope, gamma: float
) -> None:
    session = open_session(steering=amplifying(llama, gamma, scope))
    scales = (1 + gamma * (weighted(llama) - 1)).astype(np.float32)
    reader, undecoded, before = Reader(llama), list[int](), ""
    for question in QUESTIONS[:3]:
        tokens = undecoded + llama.tokenize(before + prompt(question), special=True)
        reader.context.set_head_scales(0, scales if scope == "all" else None)
        reader.context.decode([Run(0, reader.n, tokens[:-1])])
        reader.n += len(tokens) - 1
        reader.context.set_head_scales(0, scales)
        logits = reader.read(tokens[-1:])
        answer = list(session.ask(question, 8))
        assert len(answer) > 1
        for i, token in enumerate(answer):
            assert token.id == int(logits.argmax())
            assert (token.p_plain, token.p_muted) == (None, None)
            assert token.p_steered == pytest.approx(softmax(logits)[token.id], abs=1e-6)
            if i < len(answer) - 1:
                logits = reader.read([token.id])
        undecoded, before = [answer[-1].id] if len(answer) == 8 else [], "<|im_end|>\n"
    assert session.streams.muted is None


def test_amplified_scopes_differ_from_each_other_and_from_no_steering(open_session: Open, llama: Model) -> None:
    chats = [[t.p_steered for t in chat(open_session())[0]]]
    chats += [[t.p_steered for t in chat(open_session(steering=amplifying(llama, 1, s)))[0]] for s in SCOPES]
    assert chats[0] != chats[1] != chats[2] != chats[0]


@pytest.mark.parametrize("scope", SCOPES)
def test_amplification_by_gamma_zero_is_the_plain_chat(open_session: Open, llama: Model, scope: Scope) -> None:
    assert chat(open_session(steering=amplifying(llama, 0.0, scope))) == chat(open_session())


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma3", "gemma4", "deci", "deepseek2", "lfm2"])
def test_heads_amplified_by_one_are_exactly_the_plain_chat(open_session: Open, kind: str, scope: Scope) -> None:
    plain = open_session(kind)
    session = open_session(kind, steering=replace(null(plain.model, scope=scope), mode="amplify"))
    for one, other in zip(chat(plain, QUESTIONS[:3]), chat(session, QUESTIONS[:3]), strict=True):
        assert ids(one) == ids(other)
        assert [t.p_steered for t in other] == [t.p_plain for t in one]
        assert {t.p_plain for t in other} == {None}


def test_amplification_cannot_follow_the_entropy(llama: Model) -> None:
    expected = r"^amplification scales heads before the logits are known: γ must be a number$"
    with pytest.raises(DpsError, match=expected):
        replace(amplifying(llama), gamma=Gamma.parse("entropy"))
    with pytest.raises(DpsError, match=expected):
        Steering(weighted(llama), Gamma(entropy=True), mode="amplify")


@pytest.mark.parametrize("scope", SCOPES)
def test_later_prompts_are_amplified_in_all_scope_only(
    open_session: Open, llama: Model, scaled: list[Decoded], scope: Scope
) -> None:
    session = open_session(steering=amplifying(llama, scope=scope))
    scales = amplifying(llama).own_scales
    for question in QUESTIONS[:3]:
        scaled.clear()
        found = list(session.ask(question, 5))
        steps = len(found)
        prompts, steps_ = scaled[:-steps], scaled[-steps:]
        assert [len(call.tokens) for call in steps_] == [1] * steps
        assert all(np.array_equal(call.scales, scales) for call in steps_ if call.scales is not None)
        assert all(call.scales is not None for call in steps_)
        assert [call.scales is not None for call in prompts] == [scope == "all"]
    assert_nothing_set(session)


def assert_nothing_set(session: Session) -> None:
    """Fail unless the full stream's heads are as they are: what is decoded next is decoded unscaled."""
    stream = session.full
    logits = stream.decode([65], 1)[0].copy()
    stream.rewind(stream.n - 1)
    stream.context.set_head_scales(0, None)
    assert np.array_equal(stream.decode([65], 1)[0], logits)
    stream.rewind(stream.n - 1)


def test_another_gamma_from_one_turn_to_the_next_keeps_what_was_written(open_session: Open, llama: Model) -> None:
    session = open_session(steering=amplifying(llama, 0.5))
    list(session.ask("Where to?", 5))
    n = len(session.full.calls)
    session.steering = amplifying(llama, -0.5)
    second = list(session.ask("And then?", 5))
    scales = [amplifying(llama, gamma).own_scales for gamma in (0.5, -0.5)]
    calls = session.full.calls
    # the last of a prompt's tokens, and all but the last of an answer, are steps; the last goes with the next prompt
    reader = by_hand(llama, calls[: n + 1], [None, *[scales[0]] * (n - 1), None])
    reader.context.set_head_scales(0, scales[1])
    for token, call in zip(second, calls[n + 1 :], strict=True):
        logits = reader.read(call)
        assert token.id == int(logits.argmax())
        assert token.p_steered == pytest.approx(softmax(logits)[token.id], abs=1e-6)


@pytest.mark.parametrize("gammas", [(0.5, -0.5), (0.5, 0.0), (0.0, 0.5)])
def test_another_gamma_in_all_scope_reads_the_chat_anew(
    open_session: Open, llama: Model, gammas: tuple[float, float]
) -> None:
    session = open_session(steering=amplifying(llama, gammas[0], "all"))
    list(session.ask("Where to?", 5))
    session.steering = amplifying(llama, gammas[1], "all")
    second = list(session.ask("And then?", 5))
    scales, calls = amplifying(llama, gammas[1]).own_scales, session.full.calls
    n = len(calls) - len(second)
    reader = by_hand(llama, calls[:n], [scales] * n)
    for token, call in zip(second, calls[n:], strict=True):
        logits = reader.read(call)
        assert token.id == int(logits.argmax())
        assert token.p_steered == pytest.approx(softmax(logits)[token.id], abs=1e-6)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_chat_can_go_from_amplification_to_contrast_and_back(open_session: Open, llama: Model, scope: Scope) -> None:
    session = open_session(steering=amplifying(llama, 0.5, scope))
    list(session.ask(QUESTIONS[0], 5))
    session.steering = null(llama, scope=scope)
    contrasted = list(session.ask(QUESTIONS[1], 5))
    assert [t.p_muted for t in contrasted] == [t.p_plain for t in contrasted]
    session.steering = amplifying(llama, 0.5, scope)
    amplified = list(session.ask(QUESTIONS[2], 5))
    assert {(t.p_plain, t.p_muted) for t in amplified} == {(None, None)}
    session.steering = None
    plain = list(session.ask(QUESTIONS[3], 5))
    assert all(t.p_plain == t.p_steered for t in plain)
    assert_nothing_set(session)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", ["llama", "gemma3", "lfm2"])
def test_an_amplified_answer_given_again_is_the_same(open_session: Open, kind: str, scope: Scope) -> None:
    session = open_session(kind)
    session.steering = amplifying_any(session.model, scope)
    chat(session, QUESTIONS[:2])
    before, calls, state = session.turns[-1].tokens, session.full.calls, session.full.context.state()
    assert list(session.regenerate(6)) == before
    assert (session.full.calls, session.full.context.state()) == (calls, state)
    assert_nothing_set(session)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", ["llama", "gemma3", "lfm2"])
def test_an_amplified_turn_taken_back_leaves_the_chat_as_it_was(open_session: Open, kind: str, scope: Scope) -> None:
    session, never = open_session(kind), open_session(kind)
    session.steering = never.steering = amplifying_any(session.model, scope)
    for one in (session, never):
        chat(one, QUESTIONS[:2])
    state = session.full.context.state()
    list(session.ask(QUESTIONS[2], 9))
    session.undo()
    assert session.full.context.state() == state
    assert list(session.ask(QUESTIONS[3], 6)) == list(never.ask(QUESTIONS[3], 6))
    session.clear()
    assert chat(session) == chat(open_session(kind, steering=session.steering))


def amplifying_any(model: Model, scope: Scope) -> Steering:
    scales = np.full((model.n_layer, model.n_head_max), 1.5, np.float32)
    return Steering(scales, Gamma(0.5), scope=scope, mode="amplify")


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("how", ["closed", "cancelled", "raised"])
def test_an_amplified_answer_that_is_broken_off_leaves_nothing_set(
    open_session: Open, llama: Model, monkeypatch: pytest.MonkeyPatch, scope: Scope, how: str
) -> None:
    session, other = (open_session(steering=amplifying(llama, scope=scope)) for _ in range(2))
    expected = list(other.ask(QUESTIONS[0], 3))
    answer = session.ask(QUESTIONS[0])
    found = [next(answer) for _ in range(3)]
    if how == "closed":
        answer.close()  # type: ignore[attr-defined]
    elif how == "cancelled":
        session.cancel.set()
        assert list(answer) == []
    else:

        def interrupted(_: Sequence[Run]) -> Logits:
            raise KeyboardInterrupt

        original = session.full.context.decode
        monkeypatch.setattr(session.full.context, "decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(answer)
        monkeypatch.setattr(session.full.context, "decode", original)
    assert found == expected
    assert session.turns[0].stop == "interrupted"
    assert_nothing_set(session)
    session.steering = other.steering = None
    assert list(session.ask(QUESTIONS[1], 6)) == list(other.ask(QUESTIONS[1], 6))


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("turns", [0, 1])
@pytest.mark.parametrize("raised", [False, True])
def test_a_question_that_is_cancelled_while_it_is_read_leaves_nothing_set(
    open_session: Open, llama: Model, monkeypatch: pytest.MonkeyPatch, scope: Scope, turns: int, raised: bool
) -> None:
    session = open_session(steering=amplifying(llama, scope=scope))
    chat(session, QUESTIONS[:turns], 4)
    state, original = session.full.context.state(), session.full.context.decode

    def cancelled(runs: Sequence[Run]) -> Logits:
        if raised:
            raise KeyboardInterrupt
        session.cancel.set()
        return original(runs)

    monkeypatch.setattr(session.full.context, "decode", cancelled)
    if raised:
        with pytest.raises(KeyboardInterrupt):
            list(session.ask("Why?"))
    else:
        assert list(session.ask("Why?")) == []
    monkeypatch.setattr(session.full.context, "decode", original)
    assert len(session.turns) == turns
    assert session.full.context.state() == state
    assert_nothing_set(session)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_stop_text_ends_an_amplified_answer_too(open_session: Open, scope: Scope) -> None:
    session = open_session(chat_template=None)
    session.steering = amplifying(session.model, scope=scope)
    script(session, " Hi\nRequest: more")
    assert "".join(t.text for t in session.ask("One?")) == " Hi"
    assert_nothing_set(session)
    script(session, " Yes", "\n\n")
    list(session.ask("Two?"))
    assert written(session) == FIRST + " Hi" + SECOND + " Yes"


# --- taking back


@pytest.mark.parametrize("scope", [None, *SCOPES])
@pytest.mark.parametrize("kind", ["llama", "lfm2"])
def test_a_greedy_answer_given_again_is_the_same_and_leaves_the_same_state(
    open_session: Open, kind: str, scope: Scope | None
) -> None:
    session = open_session(kind)
    session.steering = replace(null(session.model), scope=scope) if scope else None
    chat(session, QUESTIONS[:2])
    before = [t.id for t in session.turns[-1].tokens], session.full.calls, session.full.context.state()
    pending = session.turns[-1].pending
    again = list(session.regenerate(6))
    assert (ids(again), session.full.calls, session.full.context.state()) == before
    assert (session.turns[-1].tokens, session.turns[-1].pending) == (again, pending)
    assert [turn.user for turn in session.turns] == QUESTIONS[:2]
    if scope:
        assert [t.p_muted for t in again] == [t.p_plain for t in again]


def test_the_first_answer_can_be_given_again(open_session: Open) -> None:
    session = open_session()
    first = ids(session.ask("Why?", 6))
    assert ids(session.regenerate(6)) == first
    assert ids(session.regenerate(9))[:6] == first
    assert len(session.turns) == 1


def test_an_answer_is_given_again_with_the_steering_of_now(open_session: Open, llama: Model) -> None:
    session = open_session()
    plain = list(session.ask("Where to?", 20))
    session.steering = muting(llama, 3.0, 0.0)
    steered = list(session.regenerate(20))
    assert steered == list(open_session(steering=muting(llama, 3.0, 0.0)).ask("Where to?", 20))
    session.steering = None
    assert list(session.regenerate(20)) == plain


@pytest.mark.parametrize(
    ("kind", "scope"),
    [(kind, scope) for kind in ("llama", "gemma3", "lfm2") for scope in (None, *SCOPES)] + [("mamba", None)],
)
def test_a_turn_taken_back_leaves_the_chat_as_it_was(open_session: Open, kind: str, scope: Scope | None) -> None:
    def make() -> Session:
        session = open_session(kind)
        session.steering = null(session.model, scope=scope) if scope else None
        return session

    session, never = make(), make()
    chat(session, QUESTIONS[:2])
    state = session.full.context.state()
    list(session.ask(QUESTIONS[2], 9))
    turn = session.undo()
    assert (turn.user, len(turn.tokens)) == (QUESTIONS[2], 9)
    assert session.full.context.state() == state
    assert len(session.turns) == 2
    chat(never, QUESTIONS[:2])
    assert list(session.ask(QUESTIONS[3], 6)) == list(never.ask(QUESTIONS[3], 6))


def test_all_turns_can_be_taken_back(open_session: Open) -> None:
    session = open_session()
    chat(session)
    assert [session.undo().user for _ in QUESTIONS] == QUESTIONS[::-1]
    assert (session.turns, session.full.calls, session.full.n) == ([], [], 0)
    assert chat(session) == chat(open_session())


@pytest.mark.parametrize("scope", [None, *SCOPES])
def test_a_cleared_chat_is_a_fresh_one(open_session: Open, llama: Model, scope: Scope | None) -> None:
    steering = muting(llama, scope=scope) if scope else None
    session = open_session(steering=steering)
    chat(session)
    session.clear()
    assert (session.turns, session.full.n) == ([], 0)
    assert chat(session) == chat(open_session(steering=steering))


# --- penalties: what was taken back does not count, what stands counts once

PENALTIES = Sampling(temp=0, repeat_penalty=1.3, frequency_penalty=0.4, presence_penalty=0.2)


def test_a_cleared_chat_has_no_penalties_of_the_old_one(open_session: Open) -> None:
    session = open_session(sampling=PENALTIES)
    chat(session)
    session.clear()
    assert chat(session) == chat(open_session(sampling=PENALTIES))


def test_an_answer_given_again_has_no_penalties_of_the_old_one(open_session: Open) -> None:
    session = open_session(sampling=PENALTIES)
    chat(session, QUESTIONS[:2], 8)
    before = session.turns[-1].tokens
    assert list(session.regenerate(8)) == before


def test_a_turn_taken_back_leaves_no_penalties(open_session: Open) -> None:
    session, never = open_session(sampling=PENALTIES), open_session(sampling=PENALTIES)
    list(session.ask(QUESTIONS[0], 8))
    session.undo()
    assert list(session.ask(QUESTIONS[1], 8)) == list(never.ask(QUESTIONS[1], 8))


def test_each_token_of_the_chat_counts_once_for_the_penalties(open_session: Open) -> None:
    session = open_session(sampling=Sampling(temp=0, frequency_penalty=0.7, repeat_last_n=1000))
    reader, conversation, before = Reader(session.model), list[int](), ""
    for question in QUESTIONS[:3]:
        new = session.model.tokenize(before + prompt(question), special=True)
        logits = reader.prompt([*conversation[-1:], *new] if conversation else new)
        conversation += new
        found = list(session.ask(question, 6))
        assert len(found) == 6
        for i, token in enumerate(found):
            counts = Counter(conversation)
            penalised = logits - np.array([0.7 * counts[t] for t in range(logits.size)])
            assert token.id == int(penalised.argmax())
            conversation.append(token.id)
            if i < 5:
                logits = reader.read([token.id])
        before = "<|im_end|>\n"


# --- breaking off


@pytest.mark.parametrize("scope", [None, *SCOPES])
@pytest.mark.parametrize("kept", [1, 4])
def test_an_answer_that_is_broken_off_stays_as_far_as_it_went(
    open_session: Open, llama: Model, scope: Scope | None, kept: int
) -> None:
    session = open_session(steering=null(llama, scope=scope) if scope else None)
    answer = session.ask(QUESTIONS[0])
    first = [next(answer) for _ in range(kept)]
    answer.close()  # type: ignore[attr-defined]
    (turn,) = session.turns
    assert (turn.tokens, turn.stop) == (first, "interrupted")
    second = list(session.ask(QUESTIONS[1], 5))
    tokens = [
        *llama.tokenize(prompt(QUESTIONS[0]), special=True),
        *ids(first),
        *llama.tokenize("<|im_end|>\n" + prompt(QUESTIONS[1]), special=True),
    ]
    assert fed(session.full) == tokens + ids(second)[:-1]
    in_one_call = Reader(llama).read(tokens)
    assert second[0].id == int(in_one_call.argmax())
    assert second[0].p_plain == pytest.approx(softmax(in_one_call)[second[0].id], abs=5e-3)  # another shape, F16 cache
    in_the_same_calls = Reader(llama)
    logits = [in_the_same_calls.read(call) for call in session.full.calls][-len(second)]
    assert second[0].p_plain == pytest.approx(softmax(logits)[second[0].id], abs=1e-6)
    if scope:
        assert [t.p_muted for t in second] == [t.p_plain for t in second]


def test_an_answer_that_nobody_reads_to_its_end_is_broken_off(open_session: Open) -> None:
    session = open_session()
    for token in session.ask("Why?"):
        assert token.text
        break
    gc.collect()
    assert len(session.turns[0].tokens) == 1
    assert session.full.n == len(session.turns[0].pending)


def test_a_question_that_is_never_read_is_never_asked(open_session: Open, tape: list[Call]) -> None:
    session = open_session()
    session.ask("Why?")
    assert (session.turns, tape) == ([], [])


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("stream", ["full", "muted"])
@pytest.mark.parametrize("late", [False, True])
def test_an_interrupt_in_the_middle_of_a_step_keeps_the_streams_in_step(
    open_session: Open, llama: Model, monkeypatch: pytest.MonkeyPatch, scope: Scope, stream: str, late: bool
) -> None:
    session = open_session(steering=null(llama, scope=scope))
    answer = session.ask(QUESTIONS[0])
    first = [next(answer) for _ in range(3)]
    context = session.full.context if stream == "full" else muted_stream(session).context
    original = context.decode

    def interrupted(runs: Sequence[Run]) -> Logits:
        if late:  # the token is in the KV cache already
            original(runs)
        raise KeyboardInterrupt

    monkeypatch.setattr(context, "decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(answer)
    monkeypatch.setattr(context, "decode", original)
    assert session.turns[0].tokens == first
    second = list(session.ask(QUESTIONS[1], 5))
    tokens = [
        *llama.tokenize(prompt(QUESTIONS[0]), special=True),
        *ids(first),
        *llama.tokenize("<|im_end|>\n" + prompt(QUESTIONS[1]), special=True),
    ]
    assert fed(session.full) == tokens + ids(second)[:-1]
    assert [t.p_muted for t in second] == [t.p_plain for t in second]


def test_a_cancelled_answer_stays_as_far_as_it_went(open_session: Open) -> None:
    session, other = open_session(), open_session()
    expected = ids(other.ask(QUESTIONS[0], 3))
    found = []
    for token in session.ask(QUESTIONS[0]):
        found.append(token.id)
        if len(found) == 3:
            session.cancel.set()
    assert found == expected
    assert (len(session.turns), session.turns[0].stop) == (1, "interrupted")
    assert session.turns[0].timings.predicted_n == 3
    assert ids(session.ask(QUESTIONS[1], 6)) == ids(other.ask(QUESTIONS[1], 6))


def long_question(model: Model) -> str:
    question = "tide " * 200
    assert len(model.tokenize(question, special=False)) > N_UBATCH
    return question


@pytest.mark.parametrize("scope", [None, *SCOPES])
@pytest.mark.parametrize("turns", [0, 2])
def test_a_question_that_is_cancelled_while_it_is_read_is_taken_back(
    open_session: Open, llama: Model, monkeypatch: pytest.MonkeyPatch, scope: Scope | None, turns: int
) -> None:
    steering = null(llama, scope=scope) if scope else None
    session, other = (open_session(n_ctx=2048, steering=steering) for _ in range(2))
    for one in (session, other):
        chat(one, QUESTIONS[:turns])
    state, calls = session.full.context.state(), list(session.full.calls)
    original = session.full.context.decode

    def cancelled(runs: Sequence[Run]) -> Logits:
        session.cancel.set()
        return original(runs)

    monkeypatch.setattr(session.full.context, "decode", cancelled)
    assert list(session.ask(long_question(llama))) == []
    monkeypatch.setattr(session.full.context, "decode", original)
    assert len(session.turns) == turns
    assert (session.full.context.state(), session.full.calls) == (state, calls)
    assert list(session.ask(QUESTIONS[3], 6)) == list(other.ask(QUESTIONS[3], 6))


def test_a_short_question_that_is_cancelled_while_it_is_read_is_taken_back(
    open_session: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session()
    original = session.full.context.decode

    def cancelled(runs: Sequence[Run]) -> Logits:
        session.cancel.set()
        return original(runs)

    monkeypatch.setattr(session.full.context, "decode", cancelled)
    assert list(session.ask("Why?")) == []
    assert (session.turns, session.full.n) == ([], 0)


def test_a_question_that_is_cancelled_while_the_muted_stream_reads_it_is_taken_back(
    open_session: Open, llama: Model, tape: list[Call], monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(n_ctx=4096, steering=null(llama, scope="all"))
    list(session.ask("Why?", 2))
    context, full = muted_stream(session).context, session.full
    before = full.n
    original = context.decode

    def cancelled(runs: Sequence[Run]) -> Logits:
        session.cancel.set()
        return original(runs)

    monkeypatch.setattr(context, "decode", cancelled)
    tape.clear()
    assert list(session.ask(long_question(llama) * 2)) == []
    assert len([call for call in tape if call.context is context]) == 0  # the call itself is ended
    assert len(session.turns) == 1
    assert full.n == before


def test_a_second_context_that_cannot_be_made_takes_the_question_back(
    open_session: Open, llama: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = open_session(steering=muting(llama))

    def refused(*_: int, **__: bool) -> Context:
        raise NativeError("no memory")

    monkeypatch.setattr(session, "context", refused)
    with pytest.raises(NativeError, match="no memory"):
        list(session.ask("Why?"))
    assert (session.turns, session.full.n) == ([], 0)
    session.steering = None
    assert list(session.ask("Why?", 5)) == list(open_session().ask("Why?", 5))


# --- how an answer ends


@pytest.mark.parametrize("n", [1, 2, 7])
def test_an_answer_has_as_many_tokens_as_asked_for(open_session: Open, n: int) -> None:
    session = open_session()
    assert len(list(session.ask("Why?", n))) == n
    (turn,) = session.turns
    assert (turn.stop, len(turn.tokens), turn.timings.predicted_n) == ("length", n, n)
    assert turn.timings.prompt_n == len(session.model.tokenize(prompt("Why?"), special=True))


def test_no_tokens_asked_for_are_no_tokens(open_session: Open) -> None:
    session = open_session()
    assert list(session.ask("Why?", 0)) == []
    assert ids(session.ask("And?", 3)) == ids(session.regenerate(3))


def test_the_model_ends_its_answer(open_session: Open) -> None:
    session = open_session()
    script(session, "Yes.", 273)
    assert "".join(t.text for t in session.ask("Why?")) == "Yes."
    assert session.turns[0].stop == "eog"
    script(session, "No.", 271)  # end of text
    assert "".join(t.text for t in session.ask("Why not?")) == "No."
    assert session.turns[1].stop == "eog"
    assert written(session) == prompt("Why?") + "Yes.<|im_end|>\n" + prompt("Why not?") + "No."


def test_an_answer_may_be_empty(open_session: Open) -> None:
    session = open_session()
    script(session, 273, "So?", 273)
    assert list(session.ask("Why?")) == []
    assert (session.turns[0].stop, session.turns[0].text) == ("eog", "")
    list(session.ask("And?"))
    assert written(session) == prompt("Why?") + "<|im_end|>\n" + prompt("And?") + "So?"


@pytest.mark.parametrize("scope", [None, *SCOPES])
def test_a_full_context_ends_the_answer(open_session: Open, llama: Model, scope: Scope | None) -> None:
    session = open_session(steering=null(llama, scope=scope) if scope else None)
    script(session, "x" * 1000)
    answer = list(session.ask("Why?"))
    (turn,) = session.turns
    assert turn.stop == "context"
    assert session.full.n == N_CTX
    assert len(turn.pending) + len(answer) == N_CTX + 1  # the last token does not have to be read
    with pytest.raises(ContextFullError, match=f"the context of {N_CTX} tokens$") as info:
        list(session.ask("x" * N_CTX))
    assert info.value.remedy is Remedy.LARGER_CONTEXT
    assert (len(session.turns), session.full.n) == (1, N_CTX)
    assert session.undo() is turn
    script(session, "Yes", 273)
    assert "".join(t.text for t in session.ask("Really?")) == "Yes"


def test_a_question_that_does_not_fit_leaves_the_chat_as_it_was(open_session: Open) -> None:
    session, other = open_session(), open_session()
    for one in (session, other):
        chat(one, QUESTIONS[:2])
    state, turns = session.full.context.state(), list(session.turns)
    with pytest.raises(ContextFullError, match=f"needs more than the context of {N_CTX} tokens"):
        list(session.ask("x" * N_CTX))
    assert (session.full.context.state(), session.turns) == (state, turns)
    assert list(session.ask(QUESTIONS[2], 5)) == list(other.ask(QUESTIONS[2], 5))


def test_a_question_may_fill_the_context_but_for_one_token(open_session: Open) -> None:
    session = open_session()
    rest = N_CTX - 1 - len(session.model.tokenize(prompt(""), special=True))
    script(session, "abc")
    assert "".join(t.text for t in session.ask("x" * rest)) == "ab"
    assert session.turns[0].stop == "context"
    session.clear()
    with pytest.raises(ContextFullError):
        list(session.ask("x" * (rest + 1)))


# --- text


def test_characters_that_span_tokens_come_out_whole(open_session: Open) -> None:
    session = open_session()
    script(session, "aé€😀z", 273)
    assert [t.text for t in session.ask("Why?")] == ["a", "", "é", "", "", "€", "", "", "", "😀", "z"]
    assert session.turns[0].text == "aé€😀z"


@settings(deadline=None, max_examples=40)
@given(text=st.text(max_size=20))
def test_any_text_comes_out_as_it_was_written(tiny_model: TinyModel, text: str) -> None:
    model = shared(tiny_model())
    session = Session(model, ChatTemplate(model), sampling=GREEDY, n_ctx=N_CTX, n_threads=1)
    script(session, text, 273)
    assert "".join(t.text for t in session.ask("Why?")) == text
    session.close()


def test_bytes_that_are_no_character_become_replacement_signs(open_session: Open) -> None:
    session = open_session()
    script(session, 0xC3, "A", 0xFF, "B", 273)
    assert "".join(t.text for t in session.ask("Why?")) == "\ufffdA\ufffdB"


# --- stop texts: base models, which have no end-of-turn token


FIRST, SECOND = "Request: One?\nAnswer:", "\n\nRequest: Two?\nAnswer:"


@pytest.mark.parametrize(
    ("sampled", "shown"),
    [
        (" Hi\n\nRequest: more", " Hi"),
        (" Hi\nRequest: more", " Hi"),
        ("\n\nlate", ""),
        (" a\nb\n\n", " a\nb"),
        (" Requests\nRequests\nReq.\n\n", " Requests\nRequests\nReq."),
        (" \n \n\n", " \n "),
        (" \nRe\nRequest: no", " \nRe"),
    ],
)
@pytest.mark.parametrize("scope", [None, *SCOPES])
def test_a_stop_text_ends_the_answer_and_is_neither_shown_nor_remembered(
    open_session: Open, sampled: str, shown: str, scope: Scope | None
) -> None:
    session = open_session(chat_template=None)
    session.steering = null(session.model, scope=scope) if scope else None
    script(session, sampled)
    answer = list(session.ask("One?"))
    assert "".join(t.text for t in answer) == shown
    assert session.turns[0].stop == "stop"
    assert written(session) == FIRST + shown
    script(session, " Yes", "\n\n")
    second = list(session.ask("Two?"))
    assert written(session) == FIRST + shown + SECOND + " Yes"
    if scope:
        assert [t.p_muted for t in second] == [t.p_plain for t in second]


@pytest.mark.parametrize(
    ("sampled", "shown"),
    [
        ([" Hi", ".\n\n", "B"], " Hi."),
        ([" Hi.\n\nB"], " Hi."),
        ([" Hi.\n", "\nB"], " Hi."),
        ([" Hi", ".\nReq", "uest: no"], " Hi."),
        ([" Hi", "\n\nB"], " Hi"),
        ([" Hi\n", "so", "\n\n"], " Hi\nso"),
        (["\n\n"], ""),
        ([" a\n\nb\n\nc"], " a"),
        ([" a\nRequest: b\n\nc"], " a"),
        ([" a\n\nb\nRequest: c"], " a"),
    ],
)
@pytest.mark.parametrize("scope", [None, *SCOPES])
def test_a_stop_text_that_begins_inside_a_token_is_neither_shown_nor_remembered(
    open_session: Open, monkeypatch: pytest.MonkeyPatch, sampled: list[str], shown: str, scope: Scope | None
) -> None:
    session = open_session(chat_template=None)
    session.steering = null(session.model, scope=scope) if scope else None
    texts = dict(enumerate(sampled, 0xF5))  # bytes that no UTF-8 has
    original = session.model.piece
    monkeypatch.setattr(session.model, "piece", lambda t: texts[t].encode() if t in texts else original(t))
    script(session, *texts)
    answer = list(session.ask("One?"))
    assert "".join(t.text for t in answer) == shown
    assert session.turns[0].text == shown
    assert session.turns[0].stop == "stop"
    script(session, " Yes", "\n\n")
    second = list(session.ask("Two?"))
    assert session.model.detokenize(fed(session.full)) == FIRST + shown + SECOND + " Yes"
    script(session, " No", "\n\n")
    list(session.regenerate())
    assert session.model.detokenize(fed(session.full)) == FIRST + shown + SECOND + " No"
    if scope:
        assert [t.p_muted for t in second] == [t.p_plain for t in second]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_an_answer_may_end_before_a_token_that_a_stop_text_would_cut(
    open_session: Open, monkeypatch: pytest.MonkeyPatch, n: int
) -> None:
    session = open_session(chat_template=None)
    texts = {0xF5: " Hi", 0xF6: "\n", 0xF7: "so.\n\nB"}
    original = session.model.piece
    monkeypatch.setattr(session.model, "piece", lambda t: texts[t].encode() if t in texts else original(t))
    script(session, *texts)
    shown = "".join(t.text for t in session.ask("One?", n))
    assert shown == " Hi\nso."[: (3, 4, 7)[n - 1]]
    script(session, " Yes", "\n\n")
    list(session.ask("Two?"))
    assert session.model.detokenize(fed(session.full)) == FIRST + shown + SECOND + " Yes"


def test_what_only_looks_like_a_stop_text_is_shown_in_the_end(open_session: Open) -> None:
    session = open_session(chat_template=None)
    script(session, " a\nRequ", 273)
    assert [t.text for t in session.ask("One?")] == list(" a\nRequ")
    assert session.turns[0].stop == "eog"
    script(session, " b\nRequest, too\n\n")
    assert "".join(t.text for t in session.ask("Two?")) == " b\nRequest, too"
    assert written(session) == FIRST + " a\nRequ" + SECOND + " b\nRequest, too"


def test_a_possible_stop_text_is_held_back_and_nothing_else(open_session: Open) -> None:
    session = open_session(chat_template=None)
    script(session, " a\nb", "\n\n")
    answer = session.ask("One?")
    seen = []
    for token in answer:
        seen.append((token.text, session.full.n - len(session.turns[0].pending)))
    # (text, tokens of the answer that were read by then)
    assert seen == [(" ", 0), ("a", 1), ("\n", 3), ("b", 3)]


def test_n_predict_counts_what_is_shown(open_session: Open) -> None:
    session = open_session(chat_template=None)
    script(session, " a\nbcd")
    assert "".join(t.text for t in session.ask("One?", 3)) == " a\n"
    assert session.turns[0].stop == "length"
    script(session, " Yes", "\n\n")
    list(session.ask("Two?"))
    assert written(session) == FIRST + " a\n" + SECOND + " Yes"


def test_an_answer_that_is_cancelled_shows_what_was_held_back(open_session: Open) -> None:
    session = open_session(chat_template=None)
    script(session, " a\nRequ")
    original, seen = session.model.is_eog, list[int]()

    def count(token: int) -> bool:
        seen.append(token)
        if len(seen) == 6:
            session.cancel.set()
        return original(token)

    session.model.is_eog = count  # type: ignore[method-assign]
    try:
        answer = list(session.ask("One?"))
    finally:
        del session.model.is_eog
    assert "".join(t.text for t in answer) == " a\nReq"
    assert session.turns[0].stop == "interrupted"
    script(session, " Yes", "\n\n")
    list(session.ask("Two?"))
    assert written(session) == FIRST + " a\nReq" + SECOND + " Yes"


# --- the end


def test_closing_a_chat_frees_both_contexts(open_session: Open, llama: Model) -> None:
    session = open_session(steering=muting(llama))
    list(session.ask("Why?", 2))
    contexts = session.full.context, muted_stream(session).context
    session.close()
    assert [context.handle for context in contexts] == [None, None]
    session.close()


def test_a_chat_survives_an_interruption_while_it_is_read_again(
    open_session: Open, llama: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, other = (open_session(steering=amplifying(llama, 0.5, "all")) for _ in range(2))
    for one in (session, other):
        list(one.ask(QUESTIONS[0], 5))
        one.steering = amplifying(llama, -0.5, "all")
    with monkeypatch.context() as patch:

        def interrupted(_: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(session.full.context, "decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(session.ask(QUESTIONS[1], 5))
    assert len(session.turns) == 1
    assert list(session.ask(QUESTIONS[1], 5)) == list(other.ask(QUESTIONS[1], 5))
    assert session.full.context.state() == other.full.context.state()


@pytest.mark.parametrize("regenerate", [False, True])
def test_ctrl_c_while_the_chat_is_read_again_is_heard(
    open_session: Open, llama: Model, monkeypatch: pytest.MonkeyPatch, regenerate: bool
) -> None:
    session, other = (open_session(steering=amplifying(llama, 0.5, "all")) for _ in range(2))
    for one in (session, other):
        list(one.ask(QUESTIONS[0], 5))
        one.steering = amplifying(llama, -0.5, "all")
        list(one.ask(QUESTIONS[1], 5))
        one.streams.read_again()  # what is left where reading again was called off before

    def next_answer(one: Session) -> list[Token]:
        return list(one.regenerate(5) if regenerate else one.ask(QUESTIONS[2], 5))

    replayed = session.full.replay

    def cancelled(calls: list[list[int]], cancel: threading.Event | None = None) -> bool:
        session.cancel.set()
        return replayed(calls, cancel)

    with monkeypatch.context() as patch:
        patch.setattr(session.full, "replay", cancelled)
        assert next_answer(session) == []
    assert [turn.user for turn in session.turns] == list(QUESTIONS[:2])
    assert next_answer(session) == next_answer(other)
    assert session.full.context.state() == other.full.context.state()

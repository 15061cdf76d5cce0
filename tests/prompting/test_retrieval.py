"""What of a long history goes with a request: BM25, beside a core that stays the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TinyModel

from dps_local.chat.session import Session
from dps_local.engine.model import Model, Scope, head_mask
from dps_local.engine.prefix_cache import PrefixCache
from dps_local.engine.sampler import Sampling
from dps_local.engine.stream import Stream
from dps_local.prompting.chat_template import ChatTemplate, Exchange
from dps_local.prompting.profile import HistoryItem, Profile
from dps_local.prompting.prompt import ITEM_SHARE, Prompter, Request
from dps_local.prompting.retrieval import most_relevant, passage
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering

Load = Callable[[Path], Model]
TEXTS = ("The ferry is late.", "Rain, rain and the tide.", "Tell Sam of the ferry and the tide.", "", "Supper?")


def bm25(texts: tuple[str, ...], query: str) -> list[float]:
    """The formula of Robertson with Lucene's idf, written out: k1 = 1.5, b = 0.75."""
    split = [[w.strip(".,?").lower() for w in t.split()] for t in texts]
    docs = [words for words in split if words]
    mean = sum(map(len, docs)) / len(docs)
    scores = []
    for words in split:
        score = 0.0
        for q in query.lower().split():
            n, tf = sum(q in d for d in docs), words.count(q)
            idf = math.log(1 + (len(docs) - n + 0.5) / (n + 0.5))
            score += idf * tf / (tf + 1.5 * (1 - 0.75 + 0.75 * len(words) / mean)) if tf else 0.0
        scores.append(score)
    return scores


@pytest.mark.parametrize("query", ["ferry", "tide ferry", "The rain", "sam supper tide", "the"])
def test_the_order_is_that_of_the_formula(query: str) -> None:
    scores = bm25(TEXTS, query)
    expected = sorted((i for i, s in enumerate(scores) if s > 0), key=lambda i: (-scores[i], -i))
    assert most_relevant(TEXTS, query) == expected
    assert expected


def test_what_shares_no_word_is_not_relevant() -> None:
    assert most_relevant(TEXTS, "bicycle") == []
    assert most_relevant(TEXTS, "") == []
    assert most_relevant((), "ferry") == []
    assert most_relevant(("", "?!"), "ferry") == []


def test_of_equals_the_newest_comes_first() -> None:
    assert most_relevant(("one ferry", "one ferry", "two ferries"), "ferry") == [1, 0]


def test_scripts_without_spaces_have_words_too() -> None:
    assert most_relevant(("我喜欢船", "下雨了", "Äpfel"), "船在哪里") == [0]
    assert most_relevant(("我喜欢船", "下雨了", "Äpfel"), "äpfel") == [2]


@pytest.mark.parametrize(
    ("text", "query", "found"),
    [
        ("Tea at 4.5 past. Boats! Or\ncars?", "boats", "… Boats! Or\ncars?"),
        ("Tea at 4.5 past. Boats! Or\ncars?", "cars", "… cars?"),
        ("Tea at 4.5 past. Boats!", "past", "Tea at 4.5 past. Boats!"),
        ("Tea. Boats!", "bicycle", "Tea. Boats!"),
        ("我喜欢茶。下雨了。", "雨", "… 下雨了。"),
        ("", "boats", ""),
    ],
)
def test_a_passage_begins_with_the_sentence_that_has_most_to_do_with_the_query(
    text: str, query: str, found: str
) -> None:
    assert passage(text, query) == found


@given(st.lists(st.text(), max_size=8).map(tuple), st.text())
def test_any_texts_can_be_searched(texts: tuple[str, ...], query: str) -> None:
    found = most_relevant(texts, query)
    assert len(set(found)) == len(found)
    assert all(0 <= i < len(texts) for i in found)
    assert all(text.endswith(passage(text, query).removeprefix("… ")) for text in texts)


# --- in the prompt

LONG = Profile(
    name="Mara",
    history=tuple(
        HistoryItem(f"Note {i} about {'boats' if i % 7 == 3 else 'bread'}.", f"Write {i}.") for i in range(40)
    ),
)


@pytest.fixture
def prompter(tiny_model: TinyModel, load: Load) -> Callable[..., Prompter]:
    def make(profile: Profile = LONG, budget: int = 1300, kind: str = "llama") -> Prompter:
        model = load(tiny_model(kind))
        return Prompter(model, ChatTemplate(model), profile, budget, 2048)

    return make


def added(p: Prompter, request: Request, *, profile: bool = False) -> int:
    """Tokens that exchanges add to the prompt of a request; profile: and what all prompts show."""
    shown = p.prompt(p.system, request, p.earlier()) if profile else p.prompt("", request)
    return len(shown) - len(p.prompt("", Request(request.text)))


def written(i: int) -> Exchange:
    return Exchange(f"Write {i}.", f"Note {i} about {'boats' if i % 7 == 3 else 'bread'}.")


def test_a_long_history_keeps_a_core_of_the_newest_and_brings_what_is_related(
    prompter: Callable[..., Prompter],
) -> None:
    p = prompter()
    core = p.shown()
    assert 2 < len(core) < 30
    assert core.stop == 40
    assert p.earlier() == [written(i) for i in core]
    assert added(p, Request("Q"), profile=True) <= p.budget - p.related_tokens + 8  # of the system message
    request = p.request("Something about boats?")
    assert request.text == "Something about boats?"
    assert request.items
    assert all(i % 7 == 3 and i < core.start for i in request.items)
    assert request.items == sorted(request.items)  # equals: the newest last
    assert request.exchanges == [written(i) for i in request.items]
    assert 0 < added(p, request) <= p.related_tokens


def test_the_core_does_not_depend_on_the_request(prompter: Callable[..., Prompter]) -> None:
    p = prompter()
    first, second = p.example(39, 5)[0], p.prompt(p.system, p.request("boats", 39), p.earlier(39))
    same = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    assert "Note 38" in p.model.detokenize(first[:same])


def test_a_history_that_fits_is_all_there(prompter: Callable[..., Prompter]) -> None:
    p = prompter(budget=3000)
    assert p.earlier() == [written(i) for i in range(40)]
    assert p.request("boats") == Request("boats", [], [])


def test_nothing_related_leaves_the_request_as_it_is(prompter: Callable[..., Prompter]) -> None:
    assert prompter().request("Zzz?") == Request("Zzz?", [], [])


def test_what_is_in_the_conversation_is_not_brought_again(prompter: Callable[..., Prompter]) -> None:
    p = prompter(budget=1000)
    first = p.request("boats").items
    second = p.request("boats", exclude=set(first)).items
    assert second
    assert not set(first) & set(second)


def test_the_best_of_what_is_related_stands_next_to_the_question(prompter: Callable[..., Prompter]) -> None:
    history = tuple(HistoryItem("so " * (i % 5) + "boats") for i in range(40))
    p = prompter(Profile(history=history), budget=1800)
    items = p.request("boats").items
    texts = tuple(f" {item.output}" for item in history[: p.shown().start])
    assert len(items) > 1
    assert items == most_relevant(texts, "boats")[: len(items)][::-1]
    assert history[items[-1]].output == "boats"  # the shortest


def test_an_example_sees_nothing_of_itself_and_what_came_after(prompter: Callable[..., Prompter]) -> None:
    p = prompter()
    for i in (31, 35, 39):
        prompt = p.model.detokenize(p.example(i, 5)[0])
        numbers = [int(n.split()[0]) for n in prompt.split("Note ")[1:]]
        assert max(numbers) < i
        assert len(set(numbers)) == len(numbers)
        assert len(numbers) > len(p.shown(i))  # and some that are related


@pytest.mark.parametrize(("budget", "most", "item"), [(200, 50, 42), (600, 64, 42), (1800, 150, 75), (3000, 250, 125)])
def test_related_items_take_a_small_share_and_one_of_them_half_of_it(
    prompter: Callable[..., Prompter], budget: int, most: int, item: int
) -> None:
    history = (HistoryItem("boats " * 500), *(HistoryItem(f"bread {i} " * 8) for i in range(60)))
    p = prompter(Profile(history=history), budget=budget)
    assert p.related_tokens == most
    request = p.request("boats")
    assert request.items == [0]
    assert item - 30 <= added(p, request) <= item
    assert added(p, p.request("bread 3 boats")) <= most


def test_of_a_long_item_the_passage_is_shown_that_has_to_do_with_the_request(prompter: Callable[..., Prompter]) -> None:
    rest = "We had bread. " * 90
    history = (
        HistoryItem(f"{rest}The locker's code is 48. {rest}"),
        *(HistoryItem(f"Bread {i}. " * 8) for i in range(60)),
    )
    p = prompter(Profile(history=history), budget=3000)
    (exchange,) = p.request("Which code opens the locker?").exchanges
    assert exchange.answer.startswith("… The locker's code is 48. We had bread.")
    assert exchange.answer.endswith(" …")
    assert exchange.answer in p.model.detokenize(
        p.prompt(p.system, p.request("Which code opens the locker?"), p.earlier())
    )


@pytest.mark.parametrize(
    ("asked", "wrote", "cut"), [(5, 90, (False, True)), (90, 5, (True, False)), (90, 90, (True, True))]
)
def test_a_long_item_keeps_what_the_user_wrote(
    prompter: Callable[..., Prompter], asked: int, wrote: int, cut: tuple[bool, bool]
) -> None:
    p = prompter(Profile(history=(HistoryItem("boats " * wrote, "bread " * asked),)), budget=600)
    (exchange,) = p.earlier()
    assert tuple(text.endswith(" …") for text in exchange) == cut
    assert exchange.answer.count("boats") >= min(wrote, 6)
    assert exchange.request.count("bread") >= min(asked, 5)
    assert added(p, Request("Q", [exchange])) <= 600 // ITEM_SHARE


@settings(max_examples=20, deadline=None)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=25), st.text(max_size=40), st.integers(60, 400))
def test_any_history_stays_within_its_tokens(
    tiny_model: TinyModel, outputs: list[str], request: str, budget: int
) -> None:
    model = Model(tiny_model())
    p = Prompter(model, ChatTemplate(model), Profile(history=tuple(map(HistoryItem, outputs))), budget, 2048)
    asked = p.request(request)
    head = len(p.prompt(p.system, Request(request))) - len(p.prompt("", Request(request)))
    assert added(p, asked, profile=True) <= max(budget, head) + 8  # of the system message itself
    assert all(i < p.shown().start for i in asked.items)
    assert len(p.earlier()) == len(p.shown())
    model.close()


# --- in a chat


def open_session(p: Prompter, steering: Steering | None = None, cache: PrefixCache | None = None) -> Session:
    null = Steering(np.ones((p.model.n_layer, p.model.n_head_max), np.float32), Gamma(3.0), 0.0)
    return Session(
        p.model,
        p.template,
        system=p.system,
        earlier=p.earlier(),
        recall=lambda question, known: p.request(question, exclude=known),
        steering=steering or null,
        sampling=Sampling(temp=0.9, seed=1),
        probs=True,
        cache=cache,
        n_ctx=p.budget + 700,
        n_threads=1,
    )


@pytest.fixture
def session(prompter: Callable[..., Prompter]) -> Iterator[Session]:
    session = open_session(prompter())
    yield session
    session.close()


@pytest.mark.parametrize("scope", ["generated", "all"])
@pytest.mark.parametrize("kind", ["llama", "gemma3", "lfm2"])
def test_a_warm_chat_reads_little_with_what_is_related_and_answers_as_the_cold_one(
    prompter: Callable[..., Prompter], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str, scope: Scope
) -> None:
    p, read, counts, answers, original = prompter(budget=1800, kind=kind), list[int](), [], [], Stream.decode

    def decode(self: Stream, tokens: list[int], *rest: Any) -> Any:
        read.append(len(tokens))
        return original(self, tokens, *rest)

    monkeypatch.setattr(Stream, "decode", decode)
    for _ in range(2):
        session = open_session(p, Steering(head_mask(p.model, [(1, 0)]), Gamma(1), scope=scope), PrefixCache(tmp_path))
        answers.append(list(session.ask("Something about boats?", 1)))
        counts.append(sum(read))
        assert session.turns[0].recalled
        answers[-1] += [*session.ask("And bread?", 6), *session.regenerate(6)]
        session.close()
        read.clear()
    assert answers[0] == answers[1]
    assert counts[1] <= 0.15 * counts[0]


def test_a_chat_recalls_what_goes_with_each_question_once(session: Session) -> None:
    found: list[int] = []
    for _ in range(3):
        tokens = list(session.ask("Something about boats?", 4))
        assert [t.p_steered for t in tokens] == [t.p_plain for t in tokens]
        found += session.turns[-1].recalled
    assert found
    assert len(set(found)) == len(found)
    text = session.model.detokenize(session.full.tokens())
    assert all(text.count(f"Write {i}.") == text.count(f"Note {i} about") == 1 for i in found)
    assert [turn.user for turn in session.turns] == ["Something about boats?"] * 3


def test_what_left_the_context_may_be_recalled_again(session: Session) -> None:
    first: list[int] = []
    for _ in range(20):
        list(session.ask("Something about boats?", 4))
        first = first or list(session.turns[-1].recalled)
        if session.past and not {i for t in session.turns for i in t.recalled} & set(first):
            break
    list(session.ask("Something about boats?", 4))
    assert first[0] in session.turns[-1].recalled


def test_an_answer_given_again_keeps_what_came_with_its_question(session: Session) -> None:
    list(session.ask("Something about boats?", 4))
    recalled = session.turns[0].recalled
    list(session.regenerate(4))
    assert session.turns[0].recalled == recalled


def test_what_every_prompt_shows_is_read_once_and_stays(session: Session) -> None:
    prefix = session.model.detokenize(session.prompts.prefix)
    assert prefix.count("Note") == len(session.prompts.earlier) > 2
    read = []
    for _ in range(20):
        list(session.ask("Something about boats?", 4))
        assert session.full.tokens()[: len(session.prompts.prefix)] == session.prompts.prefix
        if session.past:
            break
        read.append(session.turns[-1].timings.prompt_n)
    assert session.past
    assert max(read[1:]) < len(session.prompts.prefix) < read[0]


def test_a_chat_that_is_restored_has_the_same_tokens(session: Session, prompter: Callable[..., Prompter]) -> None:
    for question in ("Something about boats?", "And bread 3?", "Boats again?"):
        list(session.ask(question, 4))
    assert any(turn.recalled for turn in session.turns[1:])
    other = open_session(prompter())
    assert other.restore(session.messages())
    assert other.full.calls == session.full.calls
    assert [turn.recalled for turn in other.turns] == [turn.recalled for turn in session.turns]
    other.close()


def test_a_system_message_that_is_restored_takes_the_place_of_the_profile(session: Session) -> None:
    session.recall = None
    session.restore([{"role": "system", "content": "Be brief."}])
    list(session.ask("Hello?", 4))
    text = session.model.detokenize(session.full.tokens())
    assert "Be brief." in text
    assert "Note" not in text

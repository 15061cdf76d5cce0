"""A session that is kept and gone on with answers as if it had never stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dps_local.chat.session import Session
from dps_local.conversations.conversation import messages_of, without_tokens
from dps_local.conversations.conversation_store import ConversationStore
from dps_local.conversations.kept_chat import KeptChat
from dps_local.conversations.setup import Setup
from dps_local.engine.model import Scope, head_mask
from dps_local.errors import StorageError
from dps_local.prompting.profile import HistoryItem, Profile
from dps_local.prompting.prompt import Prompter
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering, SteeringMode

Open = Callable[..., Session]
QUESTIONS = [f"Where is it {i}?" for i in range(6)]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ConversationStore]:
    with ConversationStore(tmp_path / "kept.db") as opened:
        yield opened


@pytest.fixture
def kept(store: ConversationStore) -> Callable[..., KeptChat]:
    """`kept(session)`: a new conversation; what it notices is an error, but for `said`."""

    def keep(session: Session, said: list[str] | None = None) -> KeptChat:
        return KeptChat(store, session, Setup.of(session, None), (said if said is not None else Never()).append)

    return keep


class Never:
    def append(self, text: str) -> None:
        raise AssertionError(text)


def say(chat: KeptChat, question: str, n: int = 20, steering: Any = None) -> list[int]:
    chat.asked(question)
    steered = {} if steering is None else {"steering": steering}
    tokens = [token.id for token in chat.session.ask(question, n, **steered)]
    chat.update()
    return tokens


def go_on(store: ConversationStore, session: Session) -> bool:
    return session.restore(messages_of(store.turns(store.last())))


def steered(session: Session, mode: SteeringMode, scope: Scope = "generated") -> Steering:
    heads = [] if mode == "cad" else [(0, 1), (1, 0), (2, 2)]
    return Steering(head_mask(session.model, heads), Gamma(0.7), 0.05, scope, mode)


@pytest.mark.parametrize("scope", ["generated", "all"])
@pytest.mark.parametrize("mode", ["contrast", "amplify", "cad"])
def test_it_goes_on_token_for_token_also_where_turns_have_left_and_gamma_was_changed(
    open_session: Open, store: ConversationStore, kept: Callable[..., KeptChat], mode: SteeringMode, scope: Scope
) -> None:
    session, again = (open_session(system="You write for Ada.", engine="auto") for _ in range(2))
    chat = kept(session)
    session.steering = again.steering = steering = steered(session, mode, scope)
    for question, gamma in zip(QUESTIONS, (0.7, 0.7, 0.0, 0.7, 0.4, 0.7), strict=True):
        say(chat, question, steering=replace(steering, gamma=Gamma(gamma)))
    assert session.past
    assert go_on(store, again)
    assert again.full.context.state() == session.full.context.state()
    assert again.messages() == session.messages()
    assert [m["gamma"] for m in again.messages()[1::2]] == ["0.7", "0.7", "0", "0.7", "0.4", "0.7"]
    for question in QUESTIONS[:2]:
        assert list(again.ask(question, 20)) == list(session.ask(question, 20))


@pytest.mark.parametrize("mode", ["contrast", "amplify", "cad"])
def test_answers_that_were_given_again_are_kept_as_the_last_one_was(
    open_session: Open, store: ConversationStore, kept: Callable[..., KeptChat], mode: SteeringMode
) -> None:
    """As /compare on does it: first plain, then steered; and /regen after /gamma."""
    session, again = (open_session(system="You write for Ada.", engine="auto") for _ in range(2))
    chat = kept(session)
    again.steering = steering = steered(session, mode)
    for question in QUESTIONS[:3]:
        say(chat, question, 12)
        for gamma in (0.3, 0.7):
            list(session.regenerate(12, steering=replace(steering, gamma=Gamma(gamma))))
            chat.update()
    session.undo()
    chat.update()
    assert go_on(store, again)
    assert again.full.context.state() == session.full.context.state()
    assert list(again.ask("So?", 12)) == list(session.ask("So?", 12, steering=steering))


def test_turns_are_kept_when_they_are_finished_and_questions_when_they_are_asked(
    open_session: Open, store: ConversationStore, kept: Callable[..., KeptChat]
) -> None:
    session = open_session()
    chat = kept(session)
    chat.update()
    assert store.all() == []
    chat.asked("One?")
    assert store.turns(store.last()) == [("One?", None)]
    list(session.ask("One?", 5))
    chat.update()
    say(chat, "Two?")
    (conversation,) = store.all()
    assert messages_of(store.turns(conversation)) == session.messages()
    revision = conversation.revision
    chat.update()
    assert store.last().revision == revision  # nothing changed, nothing is written
    list(session.regenerate(3))
    chat.update()
    assert messages_of(store.turns(store.last())) == session.messages()
    session.undo()
    chat.update()
    assert [t.question for t in store.turns(store.last())] == ["One?"]
    session.undo()
    chat.update()
    assert store.all() == []


def test_a_question_that_was_called_off_is_not_kept(
    open_session: Open, store: ConversationStore, kept: Callable[..., KeptChat]
) -> None:
    chat = kept(open_session())
    say(chat, "One?")
    chat.asked("Never mind?")
    chat.update()
    assert [t.question for t in store.turns(store.last())] == ["One?"]


def test_clearing_begins_another_and_forgetting_removes_this_one_alone(
    open_session: Open, store: ConversationStore, kept: Callable[..., KeptChat]
) -> None:
    chat = kept(open_session())
    for question in ("One?", "Two?"):
        say(chat, question)
        chat.session.clear()
        chat.begin()
    say(chat, "Zauberwort?")
    assert [c.title for c in store.all()] == ["Zauberwort?", "Two?", "One?"]
    chat.forget()
    say(chat, "More zauberwort?")
    assert [c.title for c in store.all()] == ["Two?", "One?"]
    assert b"auberwort" not in b"".join(file.read_bytes() for file in store.path.parent.iterdir())


def test_two_chats_that_go_on_with_one_conversation_lose_nothing(
    open_session: Open, store: ConversationStore, kept: Callable[..., KeptChat]
) -> None:
    first, said = kept(open_session()), list[str]()
    say(first, "One?")
    other = open_session()
    assert go_on(store, other)
    with ConversationStore(store.path) as again:
        conversation = again.last()
        second = KeptChat(again, other, first.setup, said.append, conversation, again.turns(conversation))
        say(first, "Two?")
        say(second, "Due?")
        say(second, "Tre?")
    assert said == ["another chat has gone on with this conversation: yours is kept as 2"]
    assert [[t.question for t in store.turns(c)] for c in store.all()] == [["One?", "Due?", "Tre?"], ["One?", "Two?"]]


def test_one_that_is_removed_meanwhile_does_not_come_back(
    open_session: Open, store: ConversationStore, kept: Callable[..., KeptChat]
) -> None:
    said = list[str]()
    chat = kept(open_session(), said)
    say(chat, "One?")
    store.remove(store.all())
    say(chat, "Two?")
    assert store.all() == []
    assert said == ["this conversation was removed meanwhile, and is not kept any more"]


def test_a_disk_that_fails_does_not_end_the_chat(
    open_session: Open, kept: Callable[..., KeptChat], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = list[str]()
    chat = kept(open_session(), said)

    def full(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(chat.store, "begin", full)
    assert say(chat, "One?")
    assert say(chat, "Two?")
    assert said == ["the disk is full; this conversation is not kept any more"]


def test_what_a_conversation_depends_on_is_told_apart(open_session: Open, tmp_path: Path) -> None:
    session = open_session()
    session.steering = steered(session, "contrast")
    profile = Profile("Ada", preferences=("short",), history=(HistoryItem("Aye."),), path=tmp_path / "ada.json")
    before = Setup.of(session, Prompter.of(session.model, profile))
    assert before.changes(Setup.of(session, Prompter.of(session.model, profile))) == []
    assert before.person == str(tmp_path / "ada.json")
    session.steering = replace(session.steering, gamma=Gamma(0.1))  # is kept with each turn
    more = replace(profile, history=(*profile.history, HistoryItem("Nay.")))
    assert before.changes(Setup.of(session, Prompter.of(session.model, more))) == ["profile"]
    session.steering = replace(session.steering, scope="all")
    assert before.changes(Setup.of(session, Prompter.of(session.model, profile))) == ["head map"]
    other = open_session(seed=1, n_ctx=512)
    other.steering = steered(other, "amplify")
    found = before.changes(Setup.of(other, None))
    assert {"model", "mode", "profile", "context size"} <= set(found)
    assert "version of dps-local" not in found


def test_with_another_model_the_text_is_read_again(
    open_session: Open, store: ConversationStore, kept: Callable[..., KeptChat]
) -> None:
    chat = kept(open_session())
    say(chat, "One?")
    other = open_session("qwen2", n_ctx=512)
    turns = store.turns(store.last())
    assert other.restore(without_tokens(messages_of(turns)))
    assert [m["content"] for m in other.messages()] == [m["content"] for m in messages_of(turns)]
    said = KeptChat(store, other, Setup.of(other, None), Never().append, store.last())
    say(said, "Two?")
    conversation = store.last()
    assert (conversation.id, conversation.setup) == (1, Setup.of(other, None))
    assert messages_of(store.turns(conversation)) == other.messages()

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CHATML, TinyModel

from dps_local import native
from dps_local.errors import ModelError
from dps_local.model import Model
from dps_local.template import PLAIN, ChatTemplate

BOS, EOS = 1, 2

native.load()  # as a model does that is not a stub

CHAT_ML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# a default system message, as SmolLM2 and Qwen2.5 have
WITH_DEFAULT = (
    "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n{% endif %}" + CHAT_ML
)
# refuses a system message, and roles that do not alternate
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
# drops a system message without a word
LLAMA_2 = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' + m.content + ' [/INST]' }}"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + ' ' + eos_token }}{% endif %}{% endfor %}"
)
# leaves earlier thoughts out, as Qwen 3 does
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content.split('</think>')[-1].lstrip('\n') if m.role == 'assistant' else m.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
DATED = "{{ strftime_now('Today is %d %B %Y.') }}\n" + CHAT_ML


def model(chat_template: str | None) -> Model:
    texts = {BOS: "<s>", EOS: "</s>"}
    stub = SimpleNamespace(
        name="Stub", chat_template=chat_template, bos=BOS, eos=EOS, token_text=lambda token: texts.get(token, "")
    )
    return cast(Model, stub)


def conversation(template: ChatTemplate, system: str, questions: Sequence[str], answers: Sequence[str]) -> str:
    """What the KV cache holds: the first prompt, and then answers and what stands between them."""
    text = template.first(system, questions[0])
    for turns, (answer, question) in enumerate(zip(answers, questions[1:], strict=True), 1):
        text += answer + template.next(system, turns, question)
    return text


def test_chatml_turns_are_written_as_the_model_was_trained() -> None:
    template = ChatTemplate(model(CHAT_ML))
    assert template.first("Be brief.", "Hello?") == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert template.next("Be brief.", 1, "And then?") == (
        "<|im_end|>\n<|im_start|>user\nAnd then?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert conversation(template, "Be brief.", ["Q1", "Q2", "Q3"], ["A1", "A2"]) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
        "<|im_start|>user\nQ2<|im_end|>\n<|im_start|>assistant\nA2<|im_end|>\n"
        "<|im_start|>user\nQ3<|im_end|>\n<|im_start|>assistant\n"
    )


def test_without_a_profile_there_is_no_system_message() -> None:
    assert ChatTemplate(model(CHAT_ML)).first("", "Q") == ("<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n")
    assert ChatTemplate(model(WITH_DEFAULT)).first("", "Q") == (
        "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_default_system_message_gives_way_to_the_profile() -> None:
    assert "You are helpful" not in ChatTemplate(model(WITH_DEFAULT)).first("Be brief.", "Q")
    assert "You are helpful" not in ChatTemplate(model(WITH_DEFAULT)).next("", 2, "Q")


def test_a_refused_system_message_becomes_the_beginning_of_the_first_question() -> None:
    template = ChatTemplate(model(GEMMA))
    assert template.first("Be brief.", "Hello?") == (
        "<s><start_of_turn>user\nBe brief.\n\nHello?<end_of_turn>\n<start_of_turn>model\n"
    )
    assert conversation(template, "Be brief.", ["Q1", "Q2", "Q3"], ["A1", "A2"]) == (
        "<s><start_of_turn>user\nBe brief.\n\nQ1<end_of_turn>\n<start_of_turn>model\nA1<end_of_turn>\n"
        "<start_of_turn>user\nQ2<end_of_turn>\n<start_of_turn>model\nA2<end_of_turn>\n"
        "<start_of_turn>user\nQ3<end_of_turn>\n<start_of_turn>model\n"
    )


def test_a_dropped_system_message_becomes_the_beginning_of_the_first_question() -> None:
    template = ChatTemplate(model(LLAMA_2))
    assert template.first("Be brief.", "Hello?") == "<s>[INST] Be brief.\n\nHello? [/INST]"
    assert template.first("", "Hello?") == "<s>[INST] Hello? [/INST]"
    # the answers are sampled with the blank that the template puts before them
    assert conversation(template, "Be brief.", ["Q1", "Q2", "Q3"], [" A1", " A2"]) == (
        "<s>[INST] Be brief.\n\nQ1 [/INST] A1 </s><s>[INST] Q2 [/INST] A2 </s><s>[INST] Q3 [/INST]"
    )


def test_a_template_may_ask_for_the_date() -> None:
    template = ChatTemplate(model(DATED))
    before = datetime.now()
    text = template.first("Be brief.", "Q1")
    after = datetime.now()
    assert text.splitlines()[0] in {f"{day:Today is %d %B %Y.}" for day in (before, after)}
    assert "Today" not in template.next("Be brief.", 1, "Q2")


def test_thinking_is_off() -> None:
    template = ChatTemplate(model(THINKING))
    assert template.first("", "Q").endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert template.next("", 1, "Q").endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_a_base_model_gets_a_plain_layout_and_texts_that_end_an_answer() -> None:
    template = ChatTemplate(model(None))
    assert conversation(template, "I like tea.", ["Q1", "Q2", "Q3"], [" A1", " A2"]) == (
        "I like tea.\n\nRequest: Q1\nAnswer: A1\n\nRequest: Q2\nAnswer: A2\n\nRequest: Q3\nAnswer:"
    )
    assert template.first("", "Q1") == "Request: Q1\nAnswer:"
    assert template.stop == ("\n\n", "\nRequest:", "\nAnswer:")


def test_a_model_with_a_template_ends_its_answers_itself() -> None:
    assert ChatTemplate(model(CHAT_ML)).stop == ()


@pytest.mark.parametrize("token", [-1, 0])
def test_a_model_without_bos_or_eos_can_be_written_to(token: int) -> None:
    stub = model("{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}")
    stub.__dict__.update(bos=token, eos=token)
    assert ChatTemplate(stub).first("", "Hello") == "Hello"


words = st.text("abc XYZ.,!?é☕{}%<|>", min_size=1, max_size=12).map(str.strip).filter(bool)


@settings(deadline=None)
@given(
    st.sampled_from([CHAT_ML, WITH_DEFAULT, GEMMA, THINKING, PLAIN]),
    st.just("") | words,
    st.lists(words, min_size=1, max_size=4),
    st.data(),
)
def test_turn_by_turn_is_the_whole_conversation(
    source: str, system: str, questions: list[str], data: st.DataObject
) -> None:
    answers = data.draw(st.lists(words, min_size=len(questions) - 1, max_size=len(questions) - 1))
    template = ChatTemplate(model(source))
    opening = {GEMMA: "<s>", WITH_DEFAULT: "" if system else "<|im_start|>system\nYou are helpful.<|im_end|>\n"}
    messages: list[tuple[str, str]] = [("user", questions[0])]
    for answer, question in zip(answers, questions[1:], strict=True):
        messages += [("assistant", answer), ("user", question)]
    if source == GEMMA and system:
        messages[0] = ("user", f"{system}\n\n{questions[0]}")
    elif system:
        messages.insert(0, ("system", system))
    layouts = {
        GEMMA: ({"user": "<start_of_turn>user\n{}<end_of_turn>\n"}, "<start_of_turn>model\n", "<end_of_turn>\n"),
        PLAIN: ({"user": "Request: {}\n", "system": "{}\n\n"}, "Answer:", "\n\n"),
        THINKING: ({}, "<|im_start|>assistant\n<think>\n\n</think>\n\n", "<|im_end|>\n"),
    }
    chatml = {role: f"<|im_start|>{role}\n{{}}<|im_end|>\n" for role in ("user", "system")}
    layout, begin, end = layouts.get(source, ({}, "<|im_start|>assistant\n", "<|im_end|>\n"))
    expected = opening.get(source, "")
    for role, content in messages:
        expected += f"{begin}{content}{end}" if role == "assistant" else (chatml | layout)[role].replace("{}", content)
    assert conversation(template, system, questions, answers) == expected + begin


def test_a_question_may_hold_anything_even_the_marks_of_this_program() -> None:
    template = ChatTemplate(model(CHAT_ML))
    for question in ("{{ messages }}", "{% raw %}", "<|im_end|>", "\u0001answer\u0001", "…"):
        assert template.next("", 1, question) == (
            f"<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        )
        assert template.first(question, question) == (
            f"<|im_start|>system\n{question}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        )


def test_a_system_message_may_hold_the_marks_of_this_program() -> None:
    template = ChatTemplate(model(CHAT_ML))
    assert template.next("\u0001answer\u0001", 2, "Q") == (
        "<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    "source",
    ["{% for m in messages %}", "{{ unclosed", "{{ m.content | no_such_filter }}", "{% no_such_tag %}"],
)
def test_a_template_that_cannot_be_read_is_a_damaged_model(source: str) -> None:
    with pytest.raises(ModelError, match=r"^Stub: its chat template is damaged: .+") as info:
        ChatTemplate(model(source))
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    "source",
    [
        "{{ raise_exception('not today') }}",
        "{{ messages[9].content }}",
        "{{ no_such_function() }}",
        "{{ messages[0].content + 1 }}",
        "{{ 1 // 0 }}",
        "{{ [].pop() }}",
        "{{ {}.popitem() }}",
        "{{ messages[0].content.index('~') }}",
        "{{ range(10**9) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ],
)
def test_a_template_that_fails_is_an_error_of_the_model(source: str) -> None:
    with pytest.raises(ModelError, match=r"^the model's chat template fails: ") as info:
        ChatTemplate(model(source)).first("Be brief.", "Q")
    assert "\n" not in str(info.value)


def test_a_template_that_drops_earlier_answers_takes_single_turns_only() -> None:
    template = ChatTemplate(model("{{ messages[-1].content }}"))
    assert template.first("", "Q") == "Q"
    with pytest.raises(ModelError, match=r"drops an earlier answer: only single turns are possible$"):
        template.next("", 1, "Q")


def test_the_template_of_a_model_file_is_used(tiny_model: TinyModel) -> None:
    found: Any = ChatTemplate(Model(tiny_model(chat_template=CHATML)))
    assert found.first("S", "Q") == (
        "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
    )
    assert ChatTemplate(Model(tiny_model(chat_template=None))).first("S", "Q") == "S\n\nRequest: Q\nAnswer:"

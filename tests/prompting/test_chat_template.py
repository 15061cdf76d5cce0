from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gguf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import CHATML, TinyModel

from dps_local.chat.session import Session
from dps_local.engine import native
from dps_local.engine.model import Model
from dps_local.errors import ModelError
from dps_local.prompting import template_renderer
from dps_local.prompting.chat_template import FALLBACK_TEMPLATE, ChatTemplate, Exchange
from dps_local.prompting.template_renderer import MAX_LINES, _builtin

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
# takes a content as parts, as those of models that see
PARTS = (
    "{% for m in messages %}{{ m.role }}:{% for part in m.content %}{% if part['type'] == 'text' %}"
    "{{ part['text'] }}{% endif %}{% endfor %}<end>\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)
# opens a thought, whatever it is asked
REASONING = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}A:{{ m.content.split('</think>')[-1] }}<e>"
    "{% else %}{{ 'U:' + m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}A:<think>\n{% endif %}"
)
# the system message stands before the last question, as Mistral Nemo's
MOVING = (
    "{% if messages[0].role == 'system' %}{% set system = messages[0].content + '\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}{{ bos_token }}"
    "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST]' + (system if loop.last else '') + m.content }}[/INST]"
    "{% else %}{{ m.content + eos_token }}{% endif %}{% endfor %}"
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


# --- earlier exchanges

EARLIER = (Exchange("R1", "A1"), Exchange("R2", "A2"))


def test_earlier_exchanges_are_turns() -> None:
    template = ChatTemplate(model(CHAT_ML))
    assert template.first("Be brief.", "Hello?", EARLIER) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nR1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
        "<|im_start|>user\nR2<|im_end|>\n<|im_start|>assistant\nA2<|im_end|>\n"
        "<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert template.next("Be brief.", 3, "And then?", EARLIER[:1]) == (
        "<|im_end|>\n<|im_start|>user\nR1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
        "<|im_start|>user\nAnd then?<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (GEMMA, "<s><start_of_turn>user\nBe brief.\n\nR1<end_of_turn>\n<start_of_turn>model\nA1<end_of_turn>\n"),
        (LLAMA_2, "<s>[INST] Be brief.\n\nR1 [/INST] A1 </s>"),
        (MOVING, "<s>[INST]Be brief.\n\nR1[/INST]A1</s>"),
    ],
)
def test_a_system_message_without_a_place_begins_the_first_exchange(source: str, expected: str) -> None:
    prompt = ChatTemplate(model(source)).first("Be brief.", "Hello?", EARLIER)
    assert prompt.startswith(expected)
    assert prompt.count("Be brief.") == 1


def test_an_earlier_answer_has_no_thought() -> None:
    assert ChatTemplate(model(THINKING)).first("", "Q", EARLIER[:1]) == (
        "<|im_start|>user\nR1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
        "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    opens = ChatTemplate(model(REASONING))
    assert opens.first("", "Q", EARLIER[:1]) == "<s>U:R1A:A1<e>U:QA:<think>\n\n</think>\n\n"


LIST = "Be brief.\n\nEarlier writing:\n\nRequest: R1\nAnswer: A1\n\nRequest: R2\nAnswer: A2"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (None, f"{LIST}\n\nRequest: Q\nAnswer:"),
        ("{{ messages[-1].content }}", f"{LIST}\n\nQ"),
        ("{% if messages | length > 2 %}{{ raise_exception('one turn') }}{% endif %}" + CHAT_ML, f"system\n{LIST}<"),
        ("{% for m in messages if m.role != 'assistant' %}{{ m.content }};{% endfor %}", f"{LIST};Q;"),
    ],
)
def test_where_there_are_no_turns_earlier_exchanges_are_a_list(source: str | None, expected: str) -> None:
    prompt = ChatTemplate(model(source)).first("Be brief.", "Q", EARLIER)
    assert expected in prompt
    assert prompt.count("R1") == prompt.count("A2") == 1


def test_a_base_model_gets_what_goes_with_a_later_question_too() -> None:
    assert ChatTemplate(model(None)).next("Be brief.", 1, "Q", EARLIER[:1]) == (
        "\n\nRequest: R1\nAnswer: A1\n\nRequest: Q\nAnswer:"
    )


@pytest.mark.parametrize("name", _builtin())
def test_each_template_of_llama_cpp_brings_earlier_exchanges_in_order(name: str) -> None:
    prompt = ChatTemplate(model(name)).first("Be brief.", "Hello?", EARLIER)
    places = [prompt.index(text) for text in ("Be brief.", "R1", "A1", "R2", "A2", "Hello?")]
    assert places == sorted(places)


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


@pytest.mark.parametrize(
    ("opens", "closed"),
    [
        ("<think>", "<think>\n\n</think>\n\n"),
        ("<think>\n", "<think>\n\n</think>\n\n"),
        ("<seed:think>", "<seed:think>\n\n</seed:think>\n\n"),
        ("[THINK]\nWell, ", "[THINK]\nWell, \n\n[/THINK]\n\n"),
        ("<think></think>", "<think></think>"),
        ("think: ", "think: "),
    ],
)
def test_a_thought_that_a_template_opens_is_closed(opens: str, closed: str) -> None:
    template = ChatTemplate(model(REASONING.replace("<think>\n{%", opens + "{%")))
    assert template.first("", "Q1") == f"<s>U:Q1A:{closed}"
    assert template.first("", "why <think>") == f"<s>U:why <think>A:{closed}"
    assert template.next("", 1, "Q2") == f"<e>U:Q2A:{closed}"


def test_a_system_message_that_moves_to_the_last_question_stays_where_it_was() -> None:
    template = ChatTemplate(model(MOVING))
    assert conversation(template, "Be brief.", ["Q1", "Q2", "Q3"], ["A1", "A2"]) == (
        "<s>[INST]Be brief.\n\nQ1[/INST]A1</s>[INST]Q2[/INST]A2</s>[INST]Q3[/INST]"
    )


def test_a_profile_that_a_template_would_move_is_read_once(
    open_session: Callable[..., Session],
) -> None:
    session = open_session(chat_template=MOVING, system="you and the other, in the one thing or the other")
    read = []
    for question in ("one", "two", "six"):
        for _ in session.ask(question, 4):
            pass
        read.append(session.turns[-1].timings.prompt_n)
    assert max(read[1:]) < read[0] - len(session.model.tokenize(session.prompts.system, special=False)) / 2


def test_a_content_is_given_as_parts_where_a_text_would_be_dropped() -> None:
    template = ChatTemplate(model(PARTS))
    assert template.first("Be brief.", "Hello?") == "system:Be brief.<end>\nuser:Hello?<end>\nassistant:"
    assert conversation(template, "", ["Q1", "Q2"], ["A1"]) == (
        "user:Q1<end>\nassistant:A1<end>\nuser:Q2<end>\nassistant:"
    )


def test_a_template_may_be_the_name_of_one_of_llama_cpps() -> None:
    named, written = ChatTemplate(model("chatml")), ChatTemplate(model(CHAT_ML))
    assert named.first("Be brief: é☕", "Hello?") == written.first("Be brief: é☕", "Hello?")
    assert named.next("Be brief.", 2, "And then?") == written.next("Be brief.", 2, "And then?")
    assert named.stop == ()


@pytest.mark.parametrize("name", _builtin())
def test_each_template_of_llama_cpp_brings_the_question_and_the_profile(name: str) -> None:
    template = ChatTemplate(model(name))
    assert "Be brief." in template.first("Be brief.", "Hello?")
    assert "Hello?" in template.first("Be brief.", "Hello?")
    assert "And then?" in (later := template.next("Be brief.", 1, "And then?"))
    assert "Be brief." not in later


@pytest.mark.parametrize("source", ["no-such-name", "Hello.", "{% for m in messages %}{{ m.role }}{% endfor %}"])
def test_a_template_that_drops_the_question_is_refused(source: str) -> None:
    with pytest.raises(ModelError) as info:
        ChatTemplate(model(source))
    assert str(info.value) == (
        "Stub: its chat template drops the question: use a copy of the model with another template"
    )


def test_a_template_that_is_no_text_is_refused(tmp_path: Path, tiny_model: TinyModel) -> None:
    path = tmp_path / "array.gguf"
    writer, reader = gguf.GGUFWriter(path, "llama"), gguf.GGUFReader(tiny_model(chat_template=None))
    for field in reader.fields.values():
        if not field.name.startswith(("GGUF.", "general.architecture")):
            sub_type = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type)
    writer.add_array("tokenizer.chat_template", [CHAT_ML, CHAT_ML])
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match=r"^Tiny: its chat template is no text: download or convert the model again$"):
        ChatTemplate(Model(path))


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(90) }}",
    ],
)
def test_an_endless_template_is_an_error(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setattr("dps_local.prompting.template_renderer.MAX_LINES", 10_000)
    with pytest.raises(ModelError, match=r"^the model's chat template fails: it is still running after 10000 lines$"):
        ChatTemplate(model(source + CHAT_ML))


def test_a_long_chat_is_far_from_the_bound_of_endless_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dps_local.prompting.template_renderer.MAX_LINES", MAX_LINES // 10)
    template = ChatTemplate(model(THINKING))
    assert template.next("", 1000, "Q").endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert template.first("", "word " * 100_000).count("word") == 100_000


def test_there_is_one_bos_even_behind_line_breaks(tiny_model: TinyModel) -> None:
    found = Model(tiny_model(chat_template="\n \n{{ bos_token }}" + CHATML))
    found.adds_bos = True
    tokens = found.prompt_tokens(ChatTemplate(found).first("S", "Q"))
    assert tokens.count(found.bos) == 1
    assert tokens[0] == found.bos
    found.adds_bos = False
    assert found.prompt_tokens(ChatTemplate(found).first("S", "Q")) == tokens


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
    st.sampled_from([CHAT_ML, WITH_DEFAULT, GEMMA, THINKING, FALLBACK_TEMPLATE]),
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
        FALLBACK_TEMPLATE: ({"user": "Request: {}\n", "system": "{}\n\n"}, "Answer:", "\n\n"),
        THINKING: ({}, "<|im_start|>assistant\n<think>\n\n</think>\n\n", "<|im_end|>\n"),
    }
    chatml = {role: f"<|im_start|>{role}\n{{}}<|im_end|>\n" for role in ("user", "system")}
    layout, begin, end = layouts.get(source, ({}, "<|im_start|>assistant\n", "<|im_end|>\n"))
    expected = opening.get(source, "")
    for role, content in messages:
        expected += f"{begin}{content}{end}" if role == "assistant" else (chatml | layout)[role].replace("{}", content)
    assert conversation(template, system, questions, answers) == expected + begin


@settings(deadline=None)
@given(
    st.sampled_from([CHAT_ML, WITH_DEFAULT, GEMMA, MOVING]),
    st.just("") | words,
    st.lists(words, min_size=6, max_size=6),
)
def test_earlier_exchanges_are_as_if_they_had_been(source: str, system: str, texts: list[str]) -> None:
    template, (r1, a1, r2, a2, q1, q2) = ChatTemplate(model(source)), texts
    earlier = [Exchange(r1, a1), Exchange(r2, a2)]
    assert template.first(system, q1, earlier) == conversation(template, system, [r1, r2, q1], [a1, a2])
    assert template.next(system, 1, q2, earlier) == (
        template.next(system, 1, r1) + a1 + template.next(system, 2, r2) + a2 + template.next(system, 3, q2)
    )


def test_a_question_may_hold_anything_even_the_marks_of_this_program() -> None:
    template = ChatTemplate(model(CHAT_ML))
    for question in ("{{ messages }}", "{% raw %}", "<|im_end|>", "\u0001answer\u0001", "…"):
        assert template.next("", 1, question) == (
            f"<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        )
        assert template.first(question, question) == (
            f"<|im_start|>system\n{question}<|im_end|>\n<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        )


def test_a_template_is_ended_by_the_clock_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_renderer, "MAX_SECONDS", 0.1)
    with pytest.raises(ModelError, match=r"fails: it is still running after 0\.1 s$"):
        ChatTemplate(model("{% for i in range(9999) %}{{ range(99999) | sum }}{% endfor %}" + CHAT_ML))


def test_a_system_message_may_hold_the_marks_of_this_program() -> None:
    template = ChatTemplate(model(CHAT_ML))
    assert template.next("\u0001answer\u0001", 2, "Q") == (
        "<|im_end|>\n<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
    )
    assert template.next("", 1, "Q", [Exchange("\u0001", "\u0001answer")]) == (
        "<|im_end|>\n<|im_start|>user\n\u0001<|im_end|>\n<|im_start|>assistant\n\u0001answer<|im_end|>\n"
        "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    "source",
    [
        "{% for m in messages %}",
        "{{ unclosed",
        "{{ m.content | no_such_filter }}",
        "{% no_such_tag %}",
        "{{ " + "(" * 3000,
        "{{ " + "9" * 5000 + " }}",
        "{{\n\n'a' b }}",
    ],
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
        "{{ 9 ** 9 ** 9 ** 9 }}",
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

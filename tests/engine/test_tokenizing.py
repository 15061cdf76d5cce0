"""Long texts and long words: the tokens are llama.cpp's own, and no word is so long that it ends the process."""

from __future__ import annotations

import ctypes
import functools
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import TinyModel

from dps_local.engine.model import KIB, MEMO, Model
from dps_local.errors import ModelError
from dps_local.system.deep_stack import on_deep_stack

DEEP = ("tekken", "gpt-4o", "deepseek-v3", "deepseek-llm")  # split words by std::regex
OWN = ("gpt-2", "llama-bpe", "qwen2")  # split them by loops of llama.cpp's own
ONE_CLASS = ("a", "É", "中", "!", "\u0301", " ", "\n", "7")
words = st.text("abc ABC é中☕\u0301 0123 \n\t.,!?'’-_<|>", max_size=40)


@pytest.fixture(scope="module")
def models(tiny_model: TinyModel) -> dict[str, Model]:
    return {pre: Model(tiny_model(pre=pre)) for pre in (*DEEP, *OWN)}


def directly(model: Model, text: str) -> list[int]:
    data = text.encode()
    buffer = (ctypes.c_int32 * (len(data) + 8))()
    n = model.llama.llama_tokenize(model.vocab, data, len(data), buffer, len(buffer), False, True)
    return list(buffer[:n])


def test_a_short_text_that_comes_again_has_the_same_tokens(models: dict[str, Model]) -> None:
    model = models["gpt-2"]
    texts = [f"Rain <|im_end|> {i}" for i in range(MEMO + 5)]
    for special in (True, False):
        first = [model.tokenize(text, special=special) for text in texts]
        for tokens in first:
            tokens.append(-1)  # it is the caller's own
        assert [[*model.tokenize(text, special=special), -1] for text in texts] == first
    assert model.tokenize(texts[0], special=True) == directly(model, texts[0])
    assert model.tokenize(texts[0], special=False) != directly(model, texts[0])


@settings(deadline=None)
@given(pre=st.sampled_from((*DEEP, *OWN)), parts=st.lists(words, min_size=1, max_size=8), times=st.integers(1, 40))
def test_a_text_of_any_length_has_llama_cpps_tokens(
    models: dict[str, Model], pre: str, parts: list[str], times: int
) -> None:
    text = "".join(parts) * times  # on both sides of KIB
    assert models[pre].tokenize(text, special=True) == directly(models[pre], text)


@pytest.mark.parametrize("pre", DEEP)
@pytest.mark.parametrize("character", ONE_CLASS)
def test_a_word_of_any_length_has_tokens(models: dict[str, Model], pre: str, character: str) -> None:
    text = f"of {character * 40_000} it"
    assert models[pre].detokenize(models[pre].tokenize(text, special=False)) == text


def test_a_text_beyond_the_address_space_is_one_line(models: dict[str, Model], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dps_local.engine.model.STACK_PER_KIB", 1 << 45)
    with pytest.raises(ModelError, match=rf"^a text of {KIB} characters is too long: shorten it$"):
        models["gpt-2"].tokenize("a" * KIB, special=False)
    assert models["gpt-2"].tokenize("a" * (KIB - 1), special=False)


def test_the_stack_of_other_threads_stays_as_it_was() -> None:
    before = threading.stack_size()
    assert on_deep_stack(functools.partial(sum, [1, 2]), 64 << 20) == 3
    assert threading.stack_size() == before

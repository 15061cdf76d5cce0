"""A program with a `Llama` of its own, steered: its answers are those of a session, whatever it does with them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from maps import hand_made_map
from tiny import ATTENTION, N_FF, TinyModel, shape

from dps_local import SteeringLogitsProcessor
from dps_local.chat.session import Session
from dps_local.engine.model import Head, Model, Scope, head_mask
from dps_local.engine.sampler import Sampling
from dps_local.errors import DpsError, HeadMapError
from dps_local.maps.calibration import Mode
from dps_local.prompting.chat_template import ChatTemplate
from dps_local.steering.mixing import Gamma
from dps_local.steering.steering import Steering

MUTED = {
    "llama": [(1, 0), (2, 2)],
    "qwen2": [(0, 1), (1, 3)],
    "gemma3": [(1, 1), (2, 3)],
    "deci": [(4, 2)],
    "deepseek2": [(1, 0)],
    "gemma4": [(4, 1), (5, 2)],
    "lfm2": [(1, 2)],
}
QUESTIONS = ["Where is the harbour?", "And the tide, word for word, and what the editor wrote?", "Why?"]

MakeLlama = Callable[..., Any]
Steered = Callable[..., tuple[Model, Any, SteeringLogitsProcessor]]


@pytest.fixture
def make_llama() -> Iterator[MakeLlama]:
    """`make_llama(path, …)`: a Llama as a program would make it, with the settings of a session."""
    from llama_cpp import Llama

    made: list[Any] = []

    def make(path: Path, **options: Any) -> Any:
        defaults: dict[str, Any] = {"n_ctx": 512, "n_threads": 1, "n_threads_batch": 1, "flash_attn": True}
        made.append(Llama(str(path), verbose=False, **(defaults | options)))
        return made[-1]

    yield make
    for llama in made:
        llama.close()


@pytest.fixture
def steered(tiny_model: TinyModel, load: Callable[[Path], Model], make_llama: MakeLlama, tmp_path: Path) -> Steered:
    """`steered(kind, …)` returns a tiny model, a Llama over it, and a processor that mutes some of its heads."""

    def make(
        kind: str = "llama",
        *,
        heads: list[Head] | None = None,
        scope: Scope = "generated",
        edit: Any = None,
        gamma: float = 2.0,
        beta: float = 0.05,
        **options: Any,
    ) -> tuple[Model, Any, SteeringLogitsProcessor]:
        model = load(tiny_model(kind, edit=edit))
        llama = make_llama(model.path, **options)
        path = saved(model, tmp_path, heads or MUTED[kind], scope)
        return model, llama, SteeringLogitsProcessor(llama, path, gamma=gamma, beta=beta)

    return make


def saved(model: Model, folder: Path, heads: list[Head], scope: Scope = "generated", mode: Mode = "contrast") -> Path:
    path = folder / "me.dps.gguf"
    hand_made_map(model, selected=tuple(heads), scope=scope, mode=mode).save(path)
    return path


def lora_of(kind: str, folder: Path) -> Path:
    """Write a LoRA that changes the feed-forward of the last layer."""
    path, n_embd, layer = folder / "lora.gguf", shape(kind).n_embd, shape(kind).n_layer - 1
    writer = gguf.GGUFWriter(path, kind)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 4.0)
    rng = np.random.default_rng(0)
    for name, dims in (("a", (4, n_embd)), ("b", (N_FF, 4))):
        writer.add_tensor(f"blk.{layer}.ffn_up.weight.lora_{name}", rng.normal(0, 0.3, dims).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def session_answer(model: Model, steering: Steering | None, question: str, n: int, n_threads: int = 1) -> list[int]:
    options: dict[str, Any] = {"sampling": Sampling(temp=0), "n_ctx": 512, "n_threads": n_threads}
    session = Session(model, ChatTemplate(model), steering=steering, **options)
    try:
        return [t.id for t in session.ask(question, n)]
    finally:
        session.close()


def prompt_of(model: Model, question: str) -> list[int]:
    return model.prompt_tokens(ChatTemplate(model).first("", question))


def generate(llama: Any, prompt: list[int], n: int, *processors: Any, **options: Any) -> list[int]:
    found: list[int] = []
    for token in llama.generate(prompt, temp=0.0, logits_processor=list(processors) or None, **options):
        if token == llama.token_eos():
            break
        found.append(token)
        if len(found) == n:
            break
    return found


@pytest.mark.parametrize("scope", ["generated", "all"])
@pytest.mark.parametrize("kind", ATTENTION)
def test_a_steered_llama_answers_as_a_session_token_for_token(steered: Steered, kind: str, scope: Scope) -> None:
    model, llama, processor = steered(kind, scope=scope)
    steering = Steering(head_mask(model, MUTED[kind]), Gamma(2.0), 0.05, scope)
    plain = differ = 0
    for question in QUESTIONS * 2:  # again: the prompt is in the KV cache of the last answer then
        expected = session_answer(model, steering, question, 30)
        assert generate(llama, prompt_of(model, question), 30, processor)[: len(expected)] == expected
        plain += 1
        differ += expected != session_answer(model, None, question, 30)
    assert differ > plain / 2


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("kind", ["llama", "gemma3", "lfm2"])
def test_heads_that_do_nothing_change_nothing(steered: Steered, tmp_path: Path, kind: str, lora: bool) -> None:
    options = {"lora_path": str(lora_of(kind, tmp_path)), "lora_scale": 2.0} if lora else {}
    edit = dict.fromkeys(MUTED[kind], 0.0)
    model, llama, processor = steered(kind, edit=edit, gamma=3.0, beta=0.01, **options)
    seen = []

    def watch(_: Any, scores: Any) -> Any:
        seen.append(np.array(scores))
        return scores

    generate(llama, prompt_of(model, QUESTIONS[0]), 20, watch, processor, watch)
    before, after = seen[::2], seen[1::2]
    assert len(before) > 10
    for f, found in zip(before, after, strict=True):
        kept = found > found.max() - 500
        assert np.array_equal(found[kept], f[kept])
        assert kept.sum() == (f >= f.max() + np.log(0.01)).sum()


def test_gamma_zero_and_a_map_without_heads_leave_the_logits_alone(
    tiny_model: TinyModel, load: Callable[[Path], Model], make_llama: MakeLlama, tmp_path: Path
) -> None:
    model = load(tiny_model())
    llama, scores = make_llama(model.path), np.arange(5, dtype=np.float32)
    for gamma, heads in ((0, MUTED["llama"]), (1.0, [])):
        processor = SteeringLogitsProcessor(llama, saved(model, tmp_path, heads), gamma=gamma)
        assert processor(np.array([1, 2], np.intc), scores) is scores


def test_the_maps_own_gamma_is_the_default(
    tiny_model: TinyModel, load: Callable[[Path], Model], make_llama: MakeLlama, tmp_path: Path
) -> None:
    model = load(tiny_model())
    llama = make_llama(model.path)
    path = saved(model, tmp_path, MUTED["llama"])
    assert SteeringLogitsProcessor(llama, path).steering.gamma == Gamma(0.5)
    made = hand_made_map(model, selected=((1, 0),))
    assert SteeringLogitsProcessor(llama, made, gamma="entropy:cap=1").steering.gamma == Gamma.parse("entropy:cap=1")


def test_the_muted_stream_makes_several_steps_in_one_call(steered: Steered, monkeypatch: pytest.MonkeyPatch) -> None:
    model, llama, processor = steered(heads=[(2, 2)], beta=1.0)
    calls: list[int] = []
    original = processor.muted.decode

    def counted(tokens: list[int], *arguments: Any) -> Any:
        calls.append(len(tokens))
        return original(tokens, *arguments)

    monkeypatch.setattr(processor.muted, "decode", counted)
    found = generate(llama, prompt_of(model, QUESTIONS[0]), 40, processor)
    assert found == generate(llama, prompt_of(model, QUESTIONS[0]), 40)  # one token is plausible: it is the first
    assert max(calls) == 8
    assert len(calls) <= len(found) // 8 + 2


def test_calls_in_a_row_do_not_touch_each_other(steered: Steered) -> None:
    model, llama, processor = steered()
    a, b = (prompt_of(model, q) for q in QUESTIONS[:2])
    first = generate(llama, a, 12, processor)
    plain = generate(llama, a, 12)
    other = generate(llama, b, 12, processor)
    assert first != plain
    for _ in range(2):
        assert generate(llama, a, 12, processor) == first
        assert generate(llama, a, 5, processor) == first[:5]  # broken off
        assert generate(llama, b, 12, processor) == other
        assert generate(llama, a, 12) == plain
        llama.reset()
        assert generate(llama, b, 12, processor) == other


def test_an_error_on_the_way_leaves_the_next_call_as_ever(steered: Steered, monkeypatch: pytest.MonkeyPatch) -> None:
    model, llama, processor = steered()
    prompt = prompt_of(model, QUESTIONS[0])
    expected = generate(llama, prompt, 12, processor)
    original, left = processor.muted.decode, iter(range(4))

    def fails(*arguments: Any) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return original(*arguments)

    monkeypatch.setattr(processor.muted, "decode", fails)
    with pytest.raises(KeyboardInterrupt):
        generate(llama, prompt, 12, processor)
    monkeypatch.undo()
    assert generate(llama, prompt, 12, processor) == expected


@pytest.mark.parametrize("scope", ["generated", "all"])
@pytest.mark.parametrize("kind", ["llama", "lfm2"])
@pytest.mark.parametrize(
    "sizes", [{"n_batch": 1}, {"n_batch": 2}, {"n_batch": 5}, {"n_ubatch": 3}, {"n_batch": 16, "n_ubatch": 4}]
)
def test_batches_of_any_size_are_steered(steered: Steered, scope: Scope, kind: str, sizes: dict[str, int]) -> None:
    model, llama, processor = steered(kind, scope=scope, **sizes)
    prompt = prompt_of(model, QUESTIONS[1])
    kept = []

    def watch(ids: Any, scores: Any) -> Any:
        steered_scores = processor(ids, scores)
        kept.append(processor.draft is not None and processor.tokens == ids.tolist())
        return steered_scores

    found = generate(llama, prompt, 12, watch)
    assert kept
    assert all(kept)
    _, other, steers = steered(kind, scope=scope)
    assert found[:3] == generate(other, prompt, 3, steers)  # other batches round otherwise: the beginning counts


def test_another_llama_is_an_error_of_its_call(steered: Steered, make_llama: MakeLlama) -> None:
    model, llama, processor = steered()
    prompt, other = prompt_of(model, QUESTIONS[0]), make_llama(model.path)
    expected = generate(llama, prompt, 5, processor)
    for processors in ([processor], [lambda ids, scores: processor(ids, scores)]):
        with pytest.raises(DpsError) as info:
            generate(other, prompt, 5, *processors)
        assert str(info.value) == ("this SteeringLogitsProcessor was made for another Llama: make one for this Llama")
    assert generate(other, prompt, 5) == generate(llama, prompt, 5)
    assert generate(llama, prompt, 5, processor) == expected


def test_a_closed_processor_is_an_error_of_the_call(steered: Steered) -> None:
    model, llama, processor = steered()
    prompt = prompt_of(model, QUESTIONS[0])
    plain = generate(llama, prompt, 5)
    processor.close()
    with pytest.raises(DpsError, match=r"^this SteeringLogitsProcessor is closed: make a new one$"):
        generate(llama, prompt, 5, processor)
    with pytest.raises(DpsError, match=r"is closed: make a new one$"):
        processor(np.array(prompt, np.intc), np.zeros(model.n_vocab, np.float32))
    assert generate(llama, prompt, 5) == plain


def test_chat_completion_with_streaming_stops_and_a_cache(steered: Steered) -> None:
    from llama_cpp import LlamaRAMCache

    model, llama, processor = steered()
    llama.set_cache(LlamaRAMCache(50_000_000))

    def chat(question: str, **options: Any) -> Any:
        return llama.create_chat_completion(
            [{"role": "user", "content": question}],
            temperature=0.0,
            max_tokens=24,
            logits_processor=[processor],
            **options,
        )

    steering = Steering(head_mask(model, MUTED["llama"]), Gamma(2.0), 0.05)
    for question in (QUESTIONS[0], QUESTIONS[1], QUESTIONS[0]):
        pieces = b"".join(map(model.piece, session_answer(model, steering, question, 24)))
        whole = chat(question)["choices"][0]["message"]["content"]
        # Llama puts characters together from tokens in a way of its own
        assert whole.encode("ascii", "ignore") == pieces.decode("ascii", "ignore").encode()
        parts = [part["choices"][0]["delta"].get("content", "") for part in chat(question, stream=True)]
        assert "".join(parts).encode("ascii", "ignore") == whole.encode("ascii", "ignore")
        stop = next(c for c in whole[3:] if c.isascii() and c.isprintable() and c not in whole[:3])
        assert chat(question, stop=[stop])["choices"][0]["message"]["content"] == whole.split(stop)[0]


def test_a_grammar_is_kept_even_against_all_plausible_tokens(steered: Steered) -> None:
    _, llama, processor = steered(beta=1.0)
    schema = {
        "type": "object",
        "properties": {"late": {"type": "boolean"}, "who": {"enum": ["Sam", "Ada"]}},
        "required": ["late", "who"],
    }
    for seed in range(3):
        found = llama.create_chat_completion(
            [{"role": "user", "content": QUESTIONS[seed]}],
            response_format={"type": "json_object", "schema": schema},
            temperature=0.8,
            seed=seed,
            max_tokens=60,
            logits_processor=[processor],
        )
        answer = json.loads(found["choices"][0]["message"]["content"])
        assert set(answer) == {"late", "who"}
        assert answer["who"] in ("Sam", "Ada")


def test_what_cannot_be_steered_is_said(
    tiny_model: TinyModel, load: Callable[[Path], Model], make_llama: MakeLlama, tmp_path: Path
) -> None:
    model, other = load(tiny_model()), load(tiny_model("qwen2"))
    llama = make_llama(model.path)
    path = saved(model, tmp_path, MUTED["llama"], mode="amplify")
    with pytest.raises(HeadMapError, match="calibrated for amplification: say by gamma="):
        SteeringLogitsProcessor(llama, path)
    assert SteeringLogitsProcessor(llama, path, gamma=1).steering.mode == "contrast"
    with pytest.raises(HeadMapError, match="this head map belongs to"):
        SteeringLogitsProcessor(llama, hand_made_map(other))
    with pytest.raises(DpsError, match="expected a number"):
        SteeringLogitsProcessor(llama, path, gamma="much")
    with pytest.raises(HeadMapError):
        SteeringLogitsProcessor(llama, tmp_path / "none.dps.gguf")
    embedding = make_llama(model.path, embedding=True)
    with pytest.raises(DpsError, match="drafts tokens or embeds texts"):
        SteeringLogitsProcessor(embedding, path, gamma=1)
    llama.close()
    with pytest.raises(DpsError, match="closed"):
        SteeringLogitsProcessor(llama, path, gamma=1)


def test_closing_the_llama_frees_the_second_context(steered: Steered) -> None:
    model, llama, processor = steered()
    generate(llama, prompt_of(model, "Why?"), 3, processor)
    llama.close()
    assert processor.muted.context.handle is None
    processor.close()  # once more is no error


def test_three_lines_steer_a_program(tiny_model: TinyModel, load: Callable[[Path], Model], tmp_path: Path) -> None:
    model = load(tiny_model())
    path = saved(model, tmp_path, MUTED["llama"])
    program = f"""
from dps_local import SteeringLogitsProcessor
from llama_cpp import Llama
llama = Llama({str(model.path)!r}, n_ctx=512, verbose=False)
steering = SteeringLogitsProcessor(llama, {str(path)!r}, gamma=2.0)
answer = llama("Where is the harbour?", max_tokens=8, temperature=0, logits_processor=[steering])
print(len(answer["choices"][0]["text"]) > 0)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert (done.returncode, done.stdout) == (0, "True\n"), done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smollm2-135m", "gemma3-270m"])
def test_real_models_answer_as_a_session(
    name: str,
    real_model: Callable[[str], Path],
    load: Callable[[Path], Model],
    make_llama: MakeLlama,
    tmp_path: Path,
) -> None:
    model = load(real_model(name))
    heads = [(model.n_layer // 2, 0), (model.n_layer // 2 + 1, 1)]
    llama = make_llama(model.path, n_threads=2, n_threads_batch=2)
    steering = Steering(head_mask(model, heads), Gamma(1.0), 0.1)
    processor = SteeringLogitsProcessor(llama, saved(model, tmp_path, heads), gamma=1.0)
    for question in QUESTIONS:
        expected = session_answer(model, steering, question, 40, n_threads=2)
        llama.reset()  # what is left of the last prompt would be read in other batches, which round otherwise
        assert generate(llama, prompt_of(model, question), 40, processor)[: len(expected)] == expected

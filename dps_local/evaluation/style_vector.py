"""`style_vector`: a direction in each layer from the model's own answers to a person's (llama.cpp's control vector)."""

from __future__ import annotations

from contextlib import closing

import numpy as np

from dps_local.engine.context import Context, LayerVectors
from dps_local.engine.sampler import Sampler, Sampling
from dps_local.engine.stream import Stream, in_batches
from dps_local.errors import ModelError
from dps_local.evaluation.task_prompter import TaskPrompter


def style_vector(prompter: TaskPrompter, items: int, n_tokens: int, n_threads: int | None) -> LayerVectors | None:
    """Return the mean state of a person's tokens minus that of the model's; None for one who wrote nothing.

    items: the newest that count, each as much as the others, with their first n_tokens. What both sides answer are the
    requests alone, without the profile; the model's answers are greedy.
    """
    profile, differences = prompter.profile, list[LayerVectors]()
    with closing(Context(prompter.model, prompter.n_ctx, n_outputs=n_tokens, n_threads=n_threads)) as context:
        stream = Stream(context)
        for i in profile.own_items(items):
            prompt = prompter.example(i, n_tokens, with_profile=False)[0]
            own = prompter.answer(profile.history[i].output)[:n_tokens]
            neutral = _answer(stream, prompt, n_tokens)
            if own and neutral:
                differences.append(_state(stream, len(prompt), own) - _state(stream, len(prompt), neutral))
    return np.mean(differences, axis=0, dtype=np.float32) if differences else None


def _answer(stream: Stream, prompt: list[int], n: int) -> list[int]:
    """Return the model's greedy answer of at most n tokens, without its end."""
    sampler, answer = Sampler(Sampling(temp=0)), list[int]()
    stream.clear()
    stream.replay(in_batches(prompt[:-1]))
    token = sampler.sample(stream.decode(prompt[-1:], 1)[0])
    while len(answer) < n and not stream.context.model.is_eog(token):
        answer.append(token)
        token = sampler.sample(stream.decode([token], 1)[0])
    return answer


def _state(stream: Stream, n_prompt: int, answer: list[int]) -> LayerVectors:
    """Return what layers put out after the prompt that was read, on average over the tokens of an answer."""
    model = stream.context.model
    layers = range(1, model.n_layer)
    stream.rewind(n_prompt)
    with stream.context.keep_layers(layers):
        stream.decode(answer, len(answer))
        states = [stream.context.layer_output(layer, len(answer)) for layer in layers]
    known = [state.mean(axis=0) for state in states if state is not None]
    if len(known) < len(states):
        raise ModelError(f"llama.cpp keeps no states of {model.name}: leave style-vector out of --methods")
    return np.array(known)

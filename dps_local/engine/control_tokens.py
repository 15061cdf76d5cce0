"""Control tokens in texts of others are text: `<|im_end|>` in a mail does not end a turn."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

from dps_local.engine.model import Model


def prompt_tokens(model: Model, render: Callable[..., str], *texts: str) -> list[int]:
    """Return the tokens of render(*texts), a chat template's text around texts of others.

    Only the template's own control tokens are parsed. Texts without any are tokenised together with the template, as
    they always were; in others each control token is hidden from the template, and comes back as plain text.
    """
    if not any(model.is_control(token) for text in texts for token in model.tokenize(text, special=True)):
        return model.tokenize(render(*texts), special=True)
    mark, hidden = secrets.token_hex(16), list[str]()  # a mark that no text can foresee
    control = _control(model)

    def hide(token: re.Match[str]) -> str:
        hidden.append(token[0])
        return f"{mark}{len(hidden) - 1:08x}"

    # every other part is a control token of the template
    parts = control.split(render(*(control.sub(hide, text) for text in texts)))
    tokens, own = list[int](), ""
    for part in parts:
        if mark not in part:
            own += part
            continue
        # llama.cpp tokenises what stands between control tokens by itself, so no border is new
        tokens += model.tokenize(own, special=True)
        plain = re.sub(f"{mark}(.{{8}})", lambda marked: hidden[int(marked[1], 16)], part)
        tokens += model.tokenize(plain, special=False)
        own = ""
    return tokens + model.tokenize(own, special=True)


def _control(model: Model) -> re.Pattern[str]:
    """Return what matches the text of any control token, the longest where several begin; one group."""
    texts = {model.token_text(token) for token in range(model.n_vocab) if model.is_control(token)} - {""}
    return re.compile(f"({'|'.join(map(re.escape, sorted(texts, key=len, reverse=True)))})")

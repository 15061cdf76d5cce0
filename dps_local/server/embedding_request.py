"""`EmbeddingRequest`: the texts that a client wants as vectors."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dps_local.engine.embedding import Vector
from dps_local.server.answer_request import HARMLESS
from dps_local.server.fields import Fields

MAX_TEXTS = 2048  # OpenAI's
EMBEDDING = ("model", "input", "encoding_format", *HARMLESS)


@dataclass(frozen=True)
class EmbeddingRequest:
    """base64: vectors are sent as their bytes, little-endian F32."""

    model: str
    texts: Sequence[str]
    base64: bool = False


@dataclass(frozen=True)
class Embedded:
    vectors: Sequence[Vector]
    n_tokens: int


def embedding_request(data: Any) -> EmbeddingRequest:
    """Read the body of /v1/embeddings."""
    fields = Fields(data)
    fields.known(EMBEDDING)
    texts = [fields.text("input")] if isinstance(fields.raw("input"), str) else fields.list("input")
    if len(texts) > MAX_TEXTS or not all(isinstance(text, str) and text for text in texts):
        raise fields.error("input", f"must be a text, or a list of at most {MAX_TEXTS} texts, none of them empty")
    if (encoding := fields.text("encoding_format", "float")) not in ("float", "base64"):
        raise fields.error("encoding_format", "must be float or base64")
    return EmbeddingRequest(fields.text("model"), texts, encoding == "base64")


def embeddings_json(request: EmbeddingRequest, found: Embedded) -> dict[str, Any]:
    def shown(vector: Vector) -> str | list[float]:
        data = np.asarray(vector, "<f4")
        return base64.b64encode(data.tobytes()).decode() if request.base64 else data.tolist()

    data = [{"object": "embedding", "index": i, "embedding": shown(vector)} for i, vector in enumerate(found.vectors)]
    used = {"prompt_tokens": found.n_tokens, "total_tokens": found.n_tokens}
    return {"object": "list", "model": request.model, "data": data, "usage": used}

"""What steering costs on this machine's GPU, as one table: tests/gpu.sh runs it.

    python tests/gpu_table.py [--shape EMBD,LAYERS,HEADS,KV_HEADS,FF] [-- OPTIONS OF BOTH BENCHES]

Two models are timed by `dps-local bench`: a real one, greedy and at a temperature, and one of another's shape with
random weights, which is written into a temporary folder (4.6 GB for that of Llama 3 8B; TMPDIR names another place).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
from maps import scores_map

from dps_local.engine import registry
from dps_local.engine.model import Model
from dps_local.maps.selection import top_k

LLAMA_3_8B = "4096,32,32,8,14336"
VOCABULARY = 128256  # of Llama 3
Q4_0 = gguf.GGMLQuantizationType.Q4_0
SPREAD = 4.6  # deviation of random Q4_0 numbers of the scale 1
DECODING = {
    "plain, ms a token": ("plain_ms", "{:.2f}"),
    "eager": ("eager_ratio", "{:.2f}"),
    "late": ("speculative_ratio", "{:.2f}"),
    "together": ("together_ratio", "{:.2f}"),
    "amplify": ("amplify_ratio", "{:.2f}"),
    "same tokens": ("same_tokens", "{:.3f}"),
    "first token, warm ÷ cold": ("warm_by_cold", "{:.2f}"),
}
SCORING = {
    "scored tokens a second": ("scored_tokens_per_s", "{:,.0f}"),
    "… ÷ prompt processing": ("ratio", "{:.2f}"),
    "brute force ÷ scoring": ("brute_force_speedup", "{:.1f}"),
    "null control": ("null_control", "{:.1g}"),
}


class Shape(NamedTuple):
    n_embd: int
    n_layer: int
    n_head: int
    n_head_kv: int
    n_ff: int

    @classmethod
    def parse(cls, text: str) -> Shape:
        return cls(*map(int, text.split(",")))

    def matrices(self, n_vocab: int) -> Iterator[tuple[str, int, int]]:
        """Yield each matrix's name, outputs and inputs."""
        n_kv = self.n_embd // self.n_head * self.n_head_kv
        yield "token_embd.weight", n_vocab, self.n_embd
        yield "output.weight", n_vocab, self.n_embd
        parts = {"attn_q": self.n_embd, "attn_k": n_kv, "attn_v": n_kv, "attn_output": self.n_embd}
        parts |= {"ffn_gate": self.n_ff, "ffn_up": self.n_ff, "ffn_down": self.n_embd}
        for layer in range(self.n_layer):
            for part, outputs in parts.items():
                inputs = self.n_ff if part == "ffn_down" else self.n_embd
                yield f"blk.{layer}.{part}.weight", outputs, inputs

    def norms(self) -> Iterator[str]:
        yield "output_norm.weight"
        for layer in range(self.n_layer):
            yield from (f"blk.{layer}.{part}_norm.weight" for part in ("attn", "ffn"))


def write_model(path: Path, shape: Shape, vocabulary: Path, n_vocab: int) -> None:
    """Write a llama of random Q4_0 weights, matrix by matrix, with another model's vocabulary, filled up to n_vocab."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name(f"random weights, {shape.n_layer} layers of {shape.n_embd}")
    writer.add_context_length(8192)
    writer.add_embedding_length(shape.n_embd)
    writer.add_block_count(shape.n_layer)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_head)
    writer.add_head_count_kv(shape.n_head_kv)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(500000.0)
    n_vocab = add_vocabulary(writer, vocabulary, n_vocab)
    for name in shape.norms():
        writer.add_tensor_info(name, (shape.n_embd,), np.dtype(np.float32), 4 * shape.n_embd)
    for name, outputs, inputs in shape.matrices(n_vocab):
        size = gguf.quant_shape_to_byte_shape((outputs, inputs), Q4_0)
        writer.add_tensor_info(name, size, np.dtype(np.uint8), outputs * size[-1], Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    rng = np.random.default_rng(21)
    for _ in shape.norms():
        writer.write_tensor_data(np.ones(shape.n_embd, np.float32))
    for _, outputs, inputs in shape.matrices(n_vocab):
        writer.write_tensor_data(random_q4_0(rng, outputs, inputs))
    writer.close()


def random_q4_0(rng: np.random.Generator, outputs: int, inputs: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return blocks of random numbers of the deviation 1/√inputs: a scale in F16, and 32 times four bits."""
    blocks = np.frombuffer(bytearray(rng.bytes(outputs * inputs // 32 * 18)), np.uint8).reshape(-1, 18)
    blocks[:, :2] = np.array([inputs**-0.5 / SPREAD], np.float16).view(np.uint8)
    return blocks.reshape(outputs, -1)


def add_vocabulary(writer: gguf.GGUFWriter, source: Path, n_vocab: int) -> int:
    """Copy the tokenizer of a model, with tokens that no text has behind its own; return how many there are."""
    fields = {f.name: f for f in gguf.GGUFReader(source).fields.values() if f.name.startswith("tokenizer.")}
    tokens = fields["tokenizer.ggml.tokens"].contents()
    more = max(0, n_vocab - len(tokens))
    behind: dict[str, list[Any]] = {
        "tokenizer.ggml.tokens": [f"<filler {i}>" for i in range(more)],
        "tokenizer.ggml.token_type": [gguf.TokenType.UNUSED] * more,
        "tokenizer.ggml.scores": [0.0] * more,
    }
    for name, field in fields.items():
        kind, *of = field.types
        value = field.contents()
        value = value + behind.get(name, []) if isinstance(value, list) else value
        writer.add_key_value(name, value, kind, of[-1] if of else None)
    return len(tokens) + more


def write_map(path: Path, model: Path) -> None:
    """Write a head map that steers by random heads, as many as scoring chooses: what they are costs the same."""
    with Model(model, 0) as loaded:
        rng = np.random.default_rng(21)
        pcs = rng.standard_normal((loaded.n_layer, loaded.n_head_max))
        heads = loaded.heads()
        chosen = [heads[i] for i in rng.permutation(len(heads))[: top_k(len(heads))]]
        weights = np.zeros_like(pcs, np.float32)
        weights[tuple(np.transpose(chosen))] = 1
        names = {"model": loaded.name, "architecture": loaded.architecture, "fingerprint": loaded.fingerprint}
        scores_map(pcs, **names, selected=tuple(chosen), weights=weights, calibration=None).save(path)


def bench(*arguments: object) -> dict[str, Any]:
    """Return what a command of dps-local says in JSON; what it says to a person goes where ours does."""
    command = [sys.executable, "-P", "-m", "dps_local", *map(str, arguments), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def row(title: str, decoding: dict[str, Any], scoring: dict[str, Any]) -> list[str]:
    decoding |= {"warm_by_cold": decoding["warm_ttft_ms"] / decoding["cold_ttft_ms"]}
    cells = [
        form.format(found[key]) if found.get(key) is not None else "–"
        for found, columns in ((decoding, DECODING), (scoring, SCORING))
        for key, form in columns.values()
    ]
    return [title, *cells]


def markdown(rows: Sequence[Sequence[str]]) -> str:
    head = ["", *DECODING, *SCORING]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def device() -> str:
    """Return the name of the GPU, or else of the CPU."""
    return str(bench("doctor")["backends"][0]["description"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="mara", help="whose requests are answered")
    parser.add_argument("--map", type=Path, help="of the real model; default: what its profile tells")
    parser.add_argument("--model", default="smollm2-135m", help="the real one, which lends its vocabulary to the other")
    parser.add_argument("--shape", type=Shape.parse, default=Shape.parse(LLAMA_3_8B))
    parser.add_argument("--n-vocab", type=int, default=VOCABULARY)
    parser.add_argument("--prompts", type=int, default=8, help="of the real model; half as many of the other")
    parser.add_argument("-n", type=int, default=128, help="tokens of an answer")
    parser.add_argument("--repeats", type=int, default=3, help="of scoring")
    parser.add_argument("options", nargs="*", help="of both benches, such as -ngl 99")
    given = parser.parse_args()

    def decode(model: object, prompts: int, *more: object) -> dict[str, Any]:
        return bench(
            *(
                "bench",
                "decode",
                "-m",
                model,
                "-p",
                given.profile,
                "--prompts",
                prompts,
                "-n",
                given.n,
                *more,
                *given.options,
            )
        )

    def scoring(model: object) -> dict[str, Any]:
        return bench("bench", "scoring", "-m", model, "--repeats", given.repeats, *given.options)

    name = given.model
    own = ["--map", given.map] if given.map else []
    rows = [
        row(f"{name}, greedy", decode(name, given.prompts, *own), scoring(name)),
        row(f"{name}, temperature 0.8", decode(name, given.prompts, *own, "--temp", 0.8), {}),
    ]
    with tempfile.TemporaryDirectory() as folder:
        large, head_map = Path(folder) / "random.gguf", Path(folder) / "random.dps.gguf"
        write_model(large, given.shape, registry.resolve(name), given.n_vocab)
        write_map(head_map, large)
        decoding = decode(large, max(1, given.prompts // 2), "--map", head_map)
        rows.append(row(decoding["model"], decoding, scoring(large)))
    print(f"{device()}: time a token ÷ llama.cpp's alone\n\n{markdown(rows)}")


if __name__ == "__main__":
    main()

"""The table of tests/gpu.sh: all of it with tiny models, and the model that it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
from gpu_table import Shape, random_q4_0, write_map, write_model
from program import PROFILE
from tiny import N_VOCAB, TinyModel

from dps_local.engine.model import Model

SHAPE = "64,2,4,2,96"
ROWS = 3


def test_random_weights_have_the_deviation_that_keeps_numbers_as_large() -> None:
    blocks = random_q4_0(np.random.default_rng(0), 32, 256)
    weights = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType.Q4_0)
    assert weights.shape == (32, 256)
    assert abs(weights.std() * 16 - 1) < 0.02


def test_the_model_has_the_shape_and_the_vocabulary_that_are_asked_for(tiny_model: TinyModel, tmp_path: Path) -> None:
    path = tmp_path / "random.gguf"
    write_model(path, Shape.parse(SHAPE), tiny_model(), N_VOCAB + 9)
    with Model(path, 0) as model, Model(tiny_model(), 0) as source:
        assert (model.n_embd, model.n_heads, model.n_vocab) == (64, (4, 4), N_VOCAB + 9)
        text = "The harbour, and 12 tides."
        assert model.tokenize(text, special=True) == source.tokenize(text, special=True)
        assert model.chat_template == source.chat_template


def test_one_command_prints_the_table(tiny_model: TinyModel, tmp_path: Path) -> None:
    profile, head_map = tmp_path / "ada.json", tmp_path / "tiny.dps.gguf"
    profile.write_text(json.dumps(PROFILE))
    write_map(head_map, tiny_model())
    command = [sys.executable, str(Path(__file__).with_name("gpu_table.py")), "--shape", SHAPE, "--n-vocab", N_VOCAB]
    command += ["--model", tiny_model(), "--map", head_map, "--profile", profile, "--prompts", 2, "-n", 6]
    command += ["--repeats", 1, "--", "-t", 1, "-c", 512]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    title, _, *table = done.stdout.splitlines()
    assert title.endswith(": time a token ÷ llama.cpp's alone")
    head, line, *rows = ([cell.strip() for cell in row.strip("|").split("|")] for row in table)
    assert len(rows) == ROWS
    assert {len(cells) for cells in (head, line, *rows)} == {12}
    found = [dict(zip(head, cells, strict=True)) for cells in rows]
    for cells in found:
        for column in ("plain, ms a token", "eager", "late", "amplify", "first token, warm ÷ cold"):
            assert float(cells[column]) > 0
        assert cells["same tokens"] == "1.000"  # on the CPU
    assert [cells["… ÷ prompt processing"] == "–" for cells in found] == [False, True, False]
    assert found[2][""] == "random weights, 2 layers of 64"

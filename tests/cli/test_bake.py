"""`dps-local bake`, and models that carry a head map."""

from __future__ import annotations

import json
from pathlib import Path

from program import Program
from tiny import TinyModel


def test_a_baked_model_steers_without_a_profile(
    program: Program, model: Path, steering_map: Path, tmp_path: Path
) -> None:
    baked = tmp_path / "baked.gguf"
    assert program("bake", model, steering_map, "-o", baked).returncode == 0
    arguments = ["generate", "-c", "512", "-n", "8", "--temp", "0", "--json", "say hello"]
    with_map = json.loads(program(*arguments, "-m", model, "--map", steering_map).stdout)
    with_baked = json.loads(program(*arguments, "-m", baked).stdout)
    assert with_baked["tokens"] == with_map["tokens"]
    assert with_baked["gamma"] == 0.5


def test_a_map_for_another_model_is_refused(
    program: Program, tiny_model: TinyModel, head_map: Path, tmp_path: Path
) -> None:
    other = tiny_model("qwen2")
    message = program.fails("generate", "-m", other, "--map", head_map, "-c", "512", "hi")
    assert "belongs to" in message
    assert "belongs to" in program.fails("bake", other, head_map, "-o", tmp_path / "out.gguf")
    assert not (tmp_path / "out.gguf").exists()

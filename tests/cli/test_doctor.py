"""`dps-local doctor`."""

from __future__ import annotations

import json
from pathlib import Path

from program import Program

from dps_local.engine.native import PATCH_VERSION


def test_doctor_names_the_patched_library(program: Program) -> None:
    said = json.loads(program("doctor", "--json").stdout)
    assert Path(said["libllama"]).exists()
    assert said["patch"] == PATCH_VERSION
    assert said["llama_cpp_python"] == "0.3.36"
    assert said["backends"][0]["name"] == "CPU"
    assert "libllama" in program("doctor").stdout

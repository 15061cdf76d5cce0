"""The build's own script: the pinned source is checked, and a patch applies exactly or says what to do next."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from builds import configure

from dps_local.engine import native

PATCHES = Path(__file__).parents[2] / "patches"
PATCH = """\
From 0000000000000000000000000000000000000000 Mon Sep 17 00:00:00 2001
From: a <a@b>
Date: Mon, 23 Nov 2026 00:00:00 +0000
Subject: [PATCH] say more

---
 src/a.cpp | 2 +-
 1 file changed, 1 insertion(+), 1 deletion(-)

diff --git a/src/a.cpp b/src/a.cpp
index 1111111..2222222 100644
--- a/src/a.cpp
+++ b/src/a.cpp
@@ -1,3 +1,3 @@
 one
-two
+two and a half
 three
"""


@pytest.fixture
def prepare() -> ModuleType:
    pytest.importorskip("patch_ng")
    spec = importlib.util.spec_from_file_location("prepare", PATCHES / "prepare.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source" / "src").mkdir(parents=True)
    (tmp_path / "source" / "src" / "a.cpp").write_text("one\ntwo\nthree\n")
    (tmp_path / "0001-say-more.patch").write_text(PATCH)
    return tmp_path / "source"


def test_a_patch_is_applied(prepare: ModuleType, source: Path) -> None:
    prepare.apply(source.parent / "0001-say-more.patch", source)
    assert (source / "src" / "a.cpp").read_text() == "one\ntwo and a half\nthree\n"


def test_a_patch_that_does_not_apply_says_what_to_do_next(prepare: ModuleType, source: Path) -> None:
    (source / "src" / "a.cpp").write_text("one\ntwo point five\nthree\n")
    with pytest.raises(SystemExit) as ended:
        prepare.apply(source.parent / "0001-say-more.patch", source)
    assert "0001-say-more.patch does not apply to llama-cpp-python" in str(ended.value)
    assert "git am --3way" in str(ended.value)
    assert (source / "src" / "a.cpp").read_text() == "one\ntwo point five\nthree\n"


def test_the_source_is_pinned_to_one_version_and_checksum(prepare: ModuleType) -> None:
    name, version, digest = prepare.pin()
    assert name == "llama-cpp-python"
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert len(digest) == 64


def test_a_cached_source_with_another_checksum_is_not_used(
    prepare: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path))
    monkeypatch.setattr(sys, "executable", "false")  # pip, which has nothing to offer here
    cached = tmp_path / "source" / f"llama_cpp_python-{prepare.pin()[1]}.tar.gz"
    cached.parent.mkdir()
    cached.write_bytes(b"something else")
    with pytest.raises(SystemExit, match="could not download"):
        prepare.fetch()


def test_a_build_makes_the_cache_for_its_owner_alone_and_without_the_package(
    prepare: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "executable", "false")
    for name in ("dps_local", "numpy", "typer"):  # the build's own environment has none of them
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SystemExit, match="could not download"):
        prepare.fetch()
    assert {folder.stat().st_mode & 0o777 for folder in (tmp_path / "cache", tmp_path / "cache" / "source")} == {0o700}


def test_every_patch_is_in_the_index(prepare: ModuleType) -> None:
    index = (PATCHES / "README.md").read_text()
    assert prepare.PATCHES
    assert all(f"`{patch.name}`" in index for patch in prepare.PATCHES)


@pytest.mark.skipif("GGML_AMX" in os.environ.get("CMAKE_ARGS", ""), reason="a build that was asked for AMX")
def test_the_build_has_no_amx() -> None:
    assert [name for name in native.load().features() if name.startswith("AMX")] == []


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="AMX is of x86")
@pytest.mark.parametrize(("arguments", "asked_for"), [((), False), (("-DGGML_AMX_INT8=ON",), True)])
def test_on_a_processor_with_amx_it_is_compiled_only_for_who_asks_for_it(
    tmp_path: Path, arguments: tuple[str, ...], asked_for: bool
) -> None:
    configure(tmp_path, "-DCMAKE_EXPORT_COMPILE_COMMANDS=ON", *arguments)
    commands = json.loads((tmp_path / "compile_commands.json").read_text())
    command = next(c for c in commands if c["file"].endswith("ggml-cpu/amx/amx.cpp"))
    there = "-march=sapphirerapids -mamx-tile -mamx-int8 -mamx-bf16"  # what -march=native says on such a processor
    assert "-march=native" in command["command"]
    preprocess = shlex.split(command["command"].split(" -o ")[0].replace("-march=native", there))
    macros = subprocess.run(
        [*preprocess, "-dM", "-E", "-x", "c++", os.devnull], check=True, capture_output=True, text=True
    )
    assert "#define __AVX512VNNI__ 1" in macros.stdout
    assert ("#define __AMX_INT8__ 1" in macros.stdout) == asked_for

"""What the program meets on a bad day, in processes of its own: a full disk, and a cache that is read-only, shared by
two programs at once, or of another version."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tiny import TinyModel

import dps_local

pytestmark = pytest.mark.slow

SCORED = ["--examples", "2", "--target-tokens", "6", "--profile-tokens", "120", "-c", "512", "--threads", "1"]
PROFILE = {
    "name": "Ada",
    "preferences": ["short", "in the words of a sailor, always"],
    "history": [{"input": f"say {i}", "output": f"Aye {i}, so be it, by gum."} for i in range(3)],
}
MAIN = "from dps_local.cli.app import main; main()"
LIMITED = f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)),) * 2); {MAIN}"


class Program:
    """The program with a tiny model and a profile, whose cache is a folder that a test may spoil."""

    def __init__(self, model: Path, folder: Path) -> None:
        self.model, self.folder, self.cache = model, folder, folder / "cache"
        self.profile = folder / "ada.json"
        self.profile.write_text(json.dumps(PROFILE))

    def start(self, *arguments: object, largest: int | None = None) -> subprocess.Popen[str]:
        """Start the program; no file may grow larger than `largest` bytes."""
        package = str(Path(dps_local.__file__).parent.parent)
        environment = os.environ | {"DPS_LOCAL_CACHE": str(self.cache), "PYTHONPATH": package}
        first = ["-c", MAIN] if largest is None else ["-c", LIMITED, str(largest)]
        return subprocess.Popen(
            [sys.executable, "-P", *first, *map(str, arguments)],
            env=environment,
            cwd=self.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def score(self, *more: object, largest: int | None = None) -> subprocess.Popen[str]:
        return self.start("score", "-m", self.model, "--profile", self.profile, *SCORED, *more, largest=largest)

    def chat(self, largest: int | None = None) -> subprocess.Popen[str]:
        asked = ["chat", "-m", self.model, "--profile", self.profile, *SCORED, "--temp", "0", "-n", "8"]
        return self.start(*asked, largest=largest)


@pytest.fixture
def program(tiny_model: TinyModel, tmp_path: Path) -> Program:
    return Program(tiny_model("llama"), tmp_path)


def said(process: subprocess.Popen[str], stdin: str = "Say ten.\n") -> str:
    """Return what a program says that ends well."""
    out, err = process.communicate(stdin, timeout=120)
    assert process.returncode == 0, err
    return out


def refused(process: subprocess.Popen[str]) -> str:
    """Return the one line of a program that ends with an error, and says nothing else but notices."""
    out, err = process.communicate("Say ten.\n", timeout=120)
    assert process.returncode == 1, err
    assert out == ""
    assert "Traceback" not in err
    [line] = re.findall(r"^error: .*$", err, re.MULTILINE)
    assert err.endswith(line + "\n")
    return str(line)


def unfinished(folder: Path) -> list[Path]:
    return list(folder.rglob("*.tmp"))


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit of the size of files")
@pytest.mark.parametrize(("largest", "what"), [(10, "scores/"), (1000, "maps/")])
def test_a_score_that_no_longer_fits_the_disk_is_one_line_and_the_next_run_is_right(
    program: Program, largest: int, what: str
) -> None:
    wanted = said(program.score("--json"))
    program.cache = program.folder / "full"
    line = refused(program.score("--json", largest=largest))
    assert line.startswith(f"error: cannot write {program.cache}/{what}")
    assert unfinished(program.cache) == []
    assert said(program.score("--json")) == wanted


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit of the size of files")
def test_a_chat_whose_state_does_not_fit_the_disk_goes_on(program: Program) -> None:
    said(program.score())
    answer = said(program.chat(largest=1000))
    assert list((program.cache / "prefixes").iterdir()) == []
    assert said(program.chat()) == answer
    assert len(list((program.cache / "prefixes").iterdir())) > 0


@pytest.mark.skipif(sys.platform == "win32", reason="there is no limit of the size of files")
def test_a_model_that_does_not_fit_the_disk_is_not_half_baked(program: Program) -> None:
    said(program.score("-o", "map.dps.gguf"))
    before = sorted(program.folder.iterdir())
    line = refused(program.start("bake", program.model, "map.dps.gguf", "-o", "baked.gguf", largest=100_000))
    assert line == "error: cannot write baked.gguf: File too large"
    assert sorted(program.folder.iterdir()) == before


@pytest.fixture
def read_only(program: Program) -> Iterator[Program]:
    """A cache with all that a chat reads, on a disk that can no longer be written to."""
    program.cache.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16m", "none", str(program.cache)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a disk is for root, on Linux")
    try:
        said(program.chat())
        subprocess.run(["mount", "-o", "remount,ro", str(program.cache)], check=True)
        yield program
    finally:
        subprocess.run(["umount", str(program.cache)], check=True)


def test_a_read_only_cache_is_good_to_read_and_no_more(read_only: Program) -> None:
    answer = said(read_only.chat())
    read_only.profile.write_text(json.dumps(PROFILE | {"name": "Grace"}))
    line = refused(read_only.chat())
    assert line.startswith(f"error: cannot write {read_only.cache}/scores/")
    assert line.endswith(": Read-only file system")
    read_only.profile.write_text(json.dumps(PROFILE))
    assert said(read_only.chat()) == answer


def test_two_programs_at_once_say_what_one_says(program: Program) -> None:
    scored, answer = said(program.score("--json")), said(program.chat())
    program.cache = program.folder / "shared"
    both = [program.score("--json"), program.score("--json")]
    assert [said(process) for process in both] == [scored] * 2
    both = [program.chat(), program.chat()]
    assert [said(process) for process in both] == [answer] * 2
    assert unfinished(program.cache) == []


def archive() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, a=np.zeros(3))
    return stream.getvalue()


FOREIGN = {
    "empty": b"",
    "text": b"an older format\n",
    "list": b"[[1]]",
    "object": b'{"format": 0}',
    "old GGUF": b"GGUF\x01\0\0\0",
    "no zip": b"PK\x03\x04" + bytes(99),
    "zip": archive(),
}


@pytest.mark.parametrize("content", FOREIGN.values(), ids=list(FOREIGN))
def test_a_cache_of_another_version_is_as_good_as_none(program: Program, content: bytes) -> None:
    answer = said(program.chat())
    files = [path for path in program.cache.rglob("*") if path.is_file()]
    assert {path.parent.name for path in files} == {"maps", "owners", "scores", "prefixes"}
    for path in files:
        path.write_bytes(content)
    assert said(program.chat()) == answer
    assert all(path.read_bytes() != content for path in files)

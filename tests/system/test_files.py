"""Files are written whole or not at all, and what a killed program left is swept away."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dps_local.engine.prefix_cache import PrefixCache
from dps_local.errors import DpsError
from dps_local.system.files import atomic_write, cache_folder, sweep

WRITER = """
import sys, time
from pathlib import Path
from dps_local.system.files import atomic_write
with atomic_write(Path(sys.argv[1])) as file:
    file.write(bytes(100_000))
    print("writing", flush=True)
    time.sleep(60)
"""

posix = pytest.mark.skipif(sys.platform == "win32", reason="nothing is swept on Windows")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def start_writing(path: Path) -> subprocess.Popen[str]:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout
    assert writer.stdout.readline() == "writing\n"
    return writer


@posix
def test_what_a_killed_program_left_goes_and_what_a_living_one_writes_stays(tmp_path: Path) -> None:
    (tmp_path / ".dps-mine.txt").touch()
    with start_writing(tmp_path / "killed") as killed, start_writing(tmp_path / "living") as living:
        assert len(names(tmp_path)) == 3
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        with atomic_write(tmp_path / "new") as file:
            file.write(b"whole")
            sweep(tmp_path)
        left = names(tmp_path)
        living.kill()
    assert [name for name in left if not name.endswith(".tmp")] == [".dps-mine.txt", "new"]
    assert len(left) == 3
    assert (tmp_path / "new").read_bytes() == b"whole"
    sweep(tmp_path)
    assert names(tmp_path) == [".dps-mine.txt", "new"]


@posix
def test_the_prefix_cache_sweeps_when_it_tidies(tmp_path: Path) -> None:
    (tmp_path / ".dps-killed.tmp").write_bytes(bytes(1000))
    PrefixCache(tmp_path).tidy()
    assert names(tmp_path) == []


@posix
def test_a_file_that_is_swept_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")
    lock = fcntl.flock
    swept: list[list[str]] = []

    def late(file: object, operation: int) -> None:
        if operation == fcntl.LOCK_EX and not swept:
            swept.append(names(tmp_path))
            sweep(tmp_path)
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with atomic_write(tmp_path / "new") as file:
        file.write(b"whole")
    assert len(swept) == 1
    assert names(tmp_path) == ["new"]


def test_a_file_in_the_place_of_a_cache_folder_is_named_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DPS_LOCAL_CACHE", str(tmp_path))
    (tmp_path / "maps").touch()
    with pytest.raises(DpsError) as error:
        cache_folder("maps")
    assert str(error.value) == (
        f"cannot make the cache folder {tmp_path / 'maps'} (File exists): set DPS_LOCAL_CACHE to a folder that can be "
        "written to"
    )

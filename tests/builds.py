"""Builds of patches/ for the tests: stock llama.cpp, and other back ends."""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from dps_local.engine import registry

PATCHES = Path(__file__).resolve().parent.parent / "patches"


def built(name: str, *arguments: str) -> Path:
    """Return the _vendor folder of a build of patches/ with these CMake arguments, from the cache if it is there."""
    arguments = (*arguments, *shlex.split(os.environ.get("CMAKE_ARGS", "")))
    folder = registry.cache_dir().parent / f"{name}-{_build_key(arguments)}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
            _build(Path(scratch), arguments)
            if not folder.exists():  # another run may have been faster
                (Path(scratch) / "prefix").replace(folder)
    return folder / "dps_local" / "_vendor"


def _build_key(arguments: Sequence[str]) -> str:
    """What the libraries depend on: ggml builds for the machine's own processor."""
    digest = hashlib.sha256()
    patches = [] if "-DDPS_LOCAL_PATCH=OFF" in arguments else [path.name for path in PATCHES.glob("*.patch")]
    for name in ("upstream.txt", "CMakeLists.txt", *sorted(patches)):
        digest.update((PATCHES / name).read_bytes())
    digest.update(f"{arguments} {platform.system()} {platform.machine()}".encode())
    if (cpuinfo := Path("/proc/cpuinfo")).exists():
        flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "")
        digest.update(flags.encode())
    return digest.hexdigest()[:16]


def configure(build: Path, *arguments: str) -> list[str]:
    """Configure patches/ in the folder `build`, and return the command of CMake itself."""
    cmake = ["cmake"] if shutil.which("cmake") else [sys.executable, "-m", "cmake"]
    command = [*cmake, "-S", str(PATCHES), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release", *arguments]
    command += [f"-DPython_EXECUTABLE={sys.executable}", *(["-G", "Ninja"] if shutil.which("ninja") else [])]
    subprocess.run(command, check=True)
    return cmake


def _build(scratch: Path, arguments: Sequence[str]) -> None:
    build = scratch / "build"
    cmake = configure(build, *arguments)
    subprocess.run([*cmake, "--build", str(build), "--target", "llama", "--parallel"], check=True)
    install = ["--install", str(build), "--component", "dps_local", "--prefix", str(scratch / "prefix")]
    subprocess.run([*cmake, *install], check=True)

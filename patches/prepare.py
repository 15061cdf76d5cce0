"""Fetch the pinned llama-cpp-python sdist, check its SHA-256, unpack it and apply the patches beside this file.

    python prepare.py FOLDER               the patched source in FOLDER
    python prepare.py FOLDER --unpatched   the stock source, for comparison

CMake runs it at configure time. A second build takes the sdist from the cache (DPS_LOCAL_CACHE, else the
platform's cache folder). A folder that is already prepared from the same inputs is left as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import patch_ng

HERE = Path(__file__).resolve().parent
UPSTREAM = HERE / "upstream.txt"
PATCHES = sorted(HERE.glob("[0-9][0-9][0-9][0-9]-*.patch"))
STAMP = ".dps-local-prepared"


def pin() -> tuple[str, str, str]:
    """Return (name, version, SHA-256) of the sdist that upstream.txt pins."""
    match = re.fullmatch(r"([\w-]+)==([\w.]+) --hash=sha256:([0-9a-f]{64})", UPSTREAM.read_text().strip())
    if match is None:
        sys.exit(f"{UPSTREAM}: expected NAME==VERSION --hash=sha256:DIGEST")
    return match[1], match[2], match[3]


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch() -> Path:
    """Return the cached sdist, downloaded by name with pip when it is not there yet."""
    name, version, digest = pin()
    # not by import: the package needs what a build's own environment lacks
    folder: Path = runpy.run_path(str(HERE.parent / "dps_local" / "system" / "cache.py"))["make"]("source")
    sdist = folder / f"{name.replace('-', '_')}-{version}.tar.gz"
    if sdist.exists() and sha256(sdist) == digest:
        return sdist
    with tempfile.TemporaryDirectory(dir=folder) as partial:
        # pip itself checks the hash; no isolation: this build's own requirements hold what the sdist's metadata needs
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
        command += ["--no-build-isolation", "--require-hashes", "--dest", partial, "--requirement", str(UPSTREAM)]
        if subprocess.run(command, check=False).returncode:
            sys.exit(f"could not download the sdist of {name} {version}: see pip's message above")
        next(Path(partial).glob("*.tar.gz")).replace(sdist)
    return sdist


def unpack(sdist: Path, folder: Path) -> None:
    """Put the contents of the sdist's one top folder into `folder`."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as partial:
        with tarfile.open(sdist) as archive:
            archive.extractall(partial, filter="data") if hasattr(tarfile, "data_filter") else archive.extractall(
                partial
            )
        shutil.rmtree(folder, ignore_errors=True)
        next(Path(partial).iterdir()).replace(folder)


def apply(patch: Path, source: Path) -> None:
    """Apply one git-format patch to the llama.cpp tree, exactly or not at all."""
    patches = patch_ng.fromfile(str(patch))
    if not patches or not patches.apply(root=str(source)):
        sys.exit(
            f"{patch.name} does not apply to {pin()[0]} {pin()[1]}. To rebase it by hand:\n"
            f"  cd {source} && git init && git add -Af . && git commit -m upstream\n"
            f"  git am --3way {patch}\n"
            f"  git format-patch -1 -o {HERE}"
        )


def prepare(folder: Path, patches: list[Path]) -> None:
    inputs = "\n".join([pin()[2], *(f"{p.name} {sha256(p)}" for p in patches)])
    stamp = folder / STAMP
    if stamp.exists() and stamp.read_text() == inputs:
        return
    unpack(fetch(), folder)
    for patch in patches:
        apply(patch, folder / "vendor" / "llama.cpp")
    stamp.write_text(inputs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--unpatched", action="store_true")
    arguments = parser.parse_args()
    prepare(arguments.folder.resolve(), [] if arguments.unpatched else PATCHES)

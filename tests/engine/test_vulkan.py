"""The Vulkan back end, built from the same patches, on a software driver: no GPU is needed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from builds import built

from dps_local.engine import native

TESTS = Path(__file__).resolve().parents[1]
HOW = "Debian: apt install glslc libvulkan-dev mesa-vulkan-drivers spirv-headers"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="software drivers are looked for on Linux only")
def test_all_of_it_is_exact_on_a_software_driver() -> None:
    if native.load().gpus():
        pytest.skip("this build is for a GPU: tests/engine/test_gpu.py has run")
    if not shutil.which("glslc") or not Path("/usr/include/vulkan/vulkan.h").exists():
        pytest.skip(f"no Vulkan to build with ({HOW})")
    if not list(Path("/usr/share/vulkan/icd.d").glob("lvp_icd*.json")):
        pytest.skip(f"no software driver for Vulkan ({HOW})")
    vendor = built("vulkan", "-DGGML_VULKAN=on")
    # ggml leaves out devices of the type CPU unless they are named
    environment = os.environ | {"DPS_LOCAL_VENDOR": str(vendor), "GGML_VK_VISIBLE_DEVICES": "0"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        str(TESTS / "engine" / "test_gpu.py"),
        "-q",
        "-p",
        "no:cacheprovider",
        "-rs",
    ]
    done = subprocess.run(
        command, env=environment, cwd=TESTS.parent, capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout, done.stdout

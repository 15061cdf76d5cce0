#!/usr/bin/env bash
# What there is to know of a GPU, in one command: tests/gpu.sh [CUDA|VULKAN|METAL]
# Builds the package for it in .venv-gpu, runs the exactness tests against the CPU, and prints what steering costs.
# Needs no network but a package index, python 3.11 or newer (PYTHON names another one) with venv, and 5 GB in TMPDIR.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# -gt 0 ]; then
    backend=$1
elif [ "$(uname)" = Darwin ]; then
    backend=METAL
elif command -v nvcc >/dev/null; then
    backend=CUDA
else
    backend=VULKAN
fi

"${PYTHON:-python3}" -m venv .venv-gpu
# not '.[test]': these tests need no more of it
CMAKE_ARGS="-DGGML_${backend}=on ${CMAKE_ARGS:-}" .venv-gpu/bin/pip install . 'pytest>=8.3'
.venv-gpu/bin/dps-local doctor
.venv-gpu/bin/python -P -m pytest tests/engine/test_gpu.py -rs
.venv-gpu/bin/dps-local models pull smollm2-135m
.venv-gpu/bin/python tests/gpu_table.py -- -ngl 99

#!/usr/bin/env bash
# What there is to know of a GPU, in one command: tests/gpu.sh [CUDA|VULKAN|METAL] [MODEL…]
# Builds the package for it in .venv-gpu, runs the exactness tests against the CPU, and times steered decoding.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ $# -gt 0 ]; then
    backend=$1
    shift
elif [ "$(uname)" = Darwin ]; then
    backend=METAL
elif command -v nvcc >/dev/null; then
    backend=CUDA
else
    backend=VULKAN
fi
models=("$@")
if [ ${#models[@]} -eq 0 ]; then
    models=(smollm2-135m gemma3-270m)
fi

python3 -m venv .venv-gpu
CMAKE_ARGS="-DGGML_${backend}=on ${CMAKE_ARGS:-}" .venv-gpu/bin/pip install '.[test]'
.venv-gpu/bin/dps-local doctor
.venv-gpu/bin/pytest tests/engine/test_gpu.py -rs
for model in "${models[@]}"; do
    if [ ! -e "$model" ]; then
        .venv-gpu/bin/dps-local models pull "$model"
    fi
    .venv-gpu/bin/dps-local bench decode -m "$model" -p mara -ngl 99 --prompts 5
done

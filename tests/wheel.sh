#!/usr/bin/env bash
# What there is to know of a wheel for other machines, in one command: tests/wheel.sh [DPS-LOCAL]
# Builds it in .venv-wheel, asks auditwheel what it needs, runs it with no compiler on PATH and on emulated older
# processors (Debian: qemu-user), and times it against a native build: the command given, or the dps-local on PATH.
set -euo pipefail
cd "$(dirname "$0")/.."

native=${1:-$(command -v dps-local || true)}
model=smollm2-135m
generate=(generate "Write about the sea." --model "$model" --offline --temp 0)
work=$PWD/.venv-wheel
clean=$work/clean
table=()
failed=0

row() {
    table+=("$(printf '%-32s %s' "$1" "$2")")
}

# run with nothing but the clean environment on PATH
alone() {
    env PATH="$clean/bin" "$@"
}

# the CPU's back end that was loaded, of those in the wheel
variant() {
    alone "$@" -P -c 'import re; from dps_local.engine import native; native.load()
print(*sorted(set(re.findall(r"libggml-cpu-(\w+)", open("/proc/self/maps").read()))))' 2>/dev/null
}

# milliseconds a token: ms THREADS DPS-LOCAL
ms() {
    "$2" "${generate[@]}" -n 64 --json --threads "$1" 2>/dev/null |
        "$clean/bin/python" -c 'import json, sys; t = json.load(sys.stdin)["timings"]
print(t["predicted_ms"] / t["predicted_n"])'
}

# the median of native / wheel over interleaved runs: speed THREADS
speed() {
    local pairs=()
    for _ in 1 2 3 4 5; do
        pairs+=("$(ms "$1" "$native") $(ms "$1" "$clean/bin/dps-local")")
    done
    printf '%s\n' "${pairs[@]}" | "$clean/bin/python" -c 'import statistics, sys
pairs = [list(map(float, line.split())) for line in sys.stdin]
print(f"{statistics.median(n / w for n, w in pairs):.2f}", f"({statistics.median(w for _, w in pairs):.1f} ms a token)")'
}

# run on an emulated processor; a child process of the program gets the same one: emulate PROCESSOR LABEL
emulate() {
    local python=$clean/bin/python-$1 said status=0
    printf '#!/bin/sh\nexec %s -cpu %s -0 "$0" %s "$@"\n' "$qemu" "$1" "$clean/bin/python" >"$python"
    chmod +x "$python"
    SECONDS=0
    said=$({
        alone "$python" -P -m dps_local doctor && alone "$python" -P -m dps_local "${generate[@]}" -n 4 -t 1
    } 2>&1 | sed '/^qemu.*: warning: /d') || status=$?
    echo "$said"
    if [ "$status" -eq 0 ]; then
        row "$2" "runs: $(variant "$python"), doctor and 4 tokens in $SECONDS s"
    elif [ "$status" -lt 128 ] && [ "$(wc -l <<<"$said")" -eq 1 ]; then
        row "$2" "$said"
    else
        row "$2" "FAILED, exit code $status: $(tail -1 <<<"$said")"
        failed=1
    fi
}

python3 -m venv --clear "$work/tools"
"$work/tools/bin/pip" install auditwheel
rm -rf "$work/dist"
CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_BACKEND_DL=ON -DGGML_CPU_ALL_VARIANTS=ON ${CMAKE_ARGS:-}" \
    "$work/tools/bin/pip" wheel --no-deps --config-settings=build-dir="$work/build" --wheel-dir "$work/dist" .
wheel=("$work"/dist/*.whl)
row "wheel" "$(basename "${wheel[0]}"), $(du -h "${wheel[0]}" | cut -f1)"

needs=$("$work/tools/bin/auditwheel" show "${wheel[0]}")
echo "$needs"
row "auditwheel" "$(tr '\n' ' ' <<<"$needs" | grep -o '"[a-z]*linux[^"]*"' | head -1)"

python3 -m venv --clear "$clean"
alone "$clean/bin/pip" install "${wheel[0]}"
if alone python -c 'import shutil, sys; sys.exit(any(map(shutil.which, ["cc", "gcc", "g++", "clang", "cmake"])))'; then
    row "compiler on PATH" "none"
fi
alone dps-local doctor
row "this processor" "$(variant python)"
[ -e "$model" ] || alone dps-local models pull "$model"
row "generate" "$(alone dps-local "${generate[@]}" -n 16 2>/dev/null | head -1)"

if [ -n "$native" ]; then
    row "speed by native, 1 thread" "$(speed 1)"
    row "speed by native, $(nproc) threads" "$(speed "$(nproc)")"
else
    row "speed by native" "skipped: no dps-local on PATH, and none given"
fi

if qemu=$(command -v qemu-x86_64 || command -v qemu-x86_64-static); then
    emulate SandyBridge "SandyBridge, no AVX2"
    emulate Nehalem "Nehalem, no AVX"
    emulate core2duo "core2duo, no SSE4.2"
    alone "$clean/bin/pip" install --target "$work/numpy" --upgrade "numpy<2.4"
    PYTHONPATH=$work/numpy emulate core2duo "core2duo with numpy<2.4"
else
    row "emulated processors" "skipped: no qemu-x86_64 (Debian: apt-get install qemu-user)"
fi

echo
printf '%s\n' "${table[@]}"
exit "$failed"

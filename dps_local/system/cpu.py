"""The first processor of this machine, as the system describes it."""

from __future__ import annotations

import platform
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
# what tells two CPUs apart; other lines of cpuinfo change from one moment to the next
KEYS = {"vendor_id", "cpu family", "model", "model name", "stepping", "flags"}
KEYS |= {"CPU implementer", "CPU variant", "CPU part", "CPU revision", "Features", "isa"}


def describe() -> dict[str, str]:
    """Return what is known of the first processor, its features included where the system lists them."""
    machine = {"machine": platform.machine()}
    if not CPUINFO.exists():
        return machine | {"processor": platform.processor()}
    description = dict[str, str]()
    with CPUINFO.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            key, _, value = (part.strip() for part in line.partition(":"))
            if not key:  # of the next processors, which cost time on a large machine
                break
            if key in KEYS:
                description[key] = value
    return machine | description

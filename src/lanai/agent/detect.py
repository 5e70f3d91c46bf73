"""What this computer has: cpus, memory, gpus, its kind and boot.

It reads the kernel's files and asks `nvidia-smi`, once. It must not fail: what cannot be found out counts as not
there, and what the caller states always wins.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from lanai.model.features import is_feature
from lanai.model.resources import Capacity

GPU_TIMEOUT_S: Final = 2.0


def capacity(
    *,
    cpu_milli: int | None = None,
    memory_bytes: int | None = None,
    gpu_ids: tuple[str, ...] | None = None,
    named: Sequence[tuple[str, int]] = (),
) -> Capacity:
    """What a node offers: the caller's figures where given, what this process may use where not."""
    return Capacity(
        cpu_milli=cpu_milli if cpu_milli is not None else usable_cpu_milli(),
        memory_bytes=memory_bytes if memory_bytes is not None else usable_memory_bytes(),
        gpus=gpu_ids if gpu_ids is not None else gpus(),
        named=tuple(sorted(named)),
    )


def usable_cpu_milli(cgroup: Path | None = None) -> int:
    """Thousandths of a cpu that this process may use: its affinity, and the least quota of the cgroups it is in."""
    found = 1000 * len(os.sched_getaffinity(0))
    for directory in _cgroups(cgroup):
        quota, _, period = _text(directory / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):
            found = min(found, max(1, 1000 * int(quota) // int(period)))
    return found


def usable_memory_bytes(cgroup: Path | None = None, meminfo: Path = Path("/proc/meminfo")) -> int:
    """RAM that this process may use: all of the computer's, or the least limit of the cgroups it is in."""
    words = next((line.split() for line in _text(meminfo).splitlines() if line.startswith("MemTotal:")), [])
    found = int(words[1]) * 1024 if len(words) > 1 and words[1].isdigit() else 0
    for directory in _cgroups(cgroup):
        limit = _text(directory / "memory.max")
        if limit.isdigit():
            found = min(found, int(limit))
    return found


def gpus(program: str = "nvidia-smi") -> tuple[str, ...]:
    """The ids of the NVIDIA gpus, as CUDA_VISIBLE_DEVICES takes them; none where the program is missing or hangs.

    A CUDA_VISIBLE_DEVICES in the agent's own environment limits them to the numbers it names.
    """
    command = [program, "--query-gpu=index", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=GPU_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ()
    found = tuple(line.strip() for line in done.stdout.splitlines() if line.strip().isdigit())
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if allowed is None:
        return found
    wanted = [word.strip() for word in allowed.split(",")]
    return tuple(gpu for gpu in found if gpu in wanted)


def features() -> tuple[str, ...]:
    """The operating system and the kind of processor, such as `linux` and `x86_64`."""
    system = os.uname()
    return tuple(name for name in (system.sysname.lower(), system.machine) if is_feature(name))


def boot_id() -> str:
    """The kernel's id of this boot; another one proves that everything from before is dead."""
    return _text(Path("/proc/sys/kernel/random/boot_id"))


def _cgroups(given: Path | None) -> list[Path]:
    """The directories of this process's cgroup (version 2) and of those above it."""
    if given is not None:
        return [given]
    root = Path("/sys/fs/cgroup")
    own = next((line[3:] for line in _text(Path("/proc/self/cgroup")).splitlines() if line.startswith("0::")), "/")
    lowest = root / own.lstrip("/")
    return [lowest, *(path for path in lowest.parents if root in path.parents or path == root)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""

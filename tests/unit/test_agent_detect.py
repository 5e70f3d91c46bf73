"""What a node finds out of itself; what cannot be found out counts as not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lanai.agent import detect


def test_cpus_are_those_of_the_affinity(tmp_path: Path) -> None:
    assert detect.usable_cpu_milli(tmp_path) == 1000 * len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("text", "expected"), [("50000 100000\n", 500), ("max 100000\n", None), ("rubbish", None)])
def test_a_cgroups_quota_limits_the_cpus(tmp_path: Path, text: str, expected: int | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert detect.usable_cpu_milli(tmp_path) == (expected or 1000 * len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(("limit", "expected"), [("max\n", 4096), ("1024\n", 1024), ("8192\n", 4096)])
def test_a_cgroups_limit_limits_the_memory(tmp_path: Path, limit: str, expected: int) -> None:
    (tmp_path / "memory.max").write_text(limit)
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       4 kB\nMemFree:        1 kB\n")
    assert detect.usable_memory_bytes(tmp_path, meminfo) == expected


def program(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def test_gpus_are_those_that_nvidia_smi_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert detect.gpus(program(tmp_path / "smi", "echo 0; echo 1")) == ("0", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert detect.gpus(str(tmp_path / "smi")) == ("1",)


@pytest.mark.parametrize("script", ["exit 9", "echo No devices were found", "sleep 60"])
def test_without_a_sound_answer_there_are_no_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    monkeypatch.setattr(detect, "GPU_TIMEOUT_S", 0.2)
    assert detect.gpus(program(tmp_path / "smi", f"exec {script}" if script.startswith("sleep") else script)) == ()


def test_without_the_program_there_are_no_gpus(tmp_path: Path) -> None:
    assert detect.gpus(str(tmp_path / "missing")) == ()


def test_what_is_stated_wins() -> None:
    found = detect.capacity(cpu_milli=1500, memory_bytes=1 << 30, gpu_ids=("7",), named=[("b", 2), ("a", 1)])
    assert found.gpus == ("7",)
    assert (found.cpu_milli, found.memory_bytes, found.named) == (1500, 1 << 30, (("a", 1), ("b", 2)))
    assert len(detect.boot_id()) == 36

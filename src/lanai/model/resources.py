"""What a job asks for and what a node has."""

from __future__ import annotations

from typing import Final

import msgspec

NODES_MAX: Final = 4096
"""Most nodes that one job may have."""
TASKS_MAX: Final = 1024
"""Most tasks on each of them: a host file is to have no more than some millions of lines."""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A job's request, complete (batch defaults filled in). Jobs of one shape wait in one line.

    Attributes:
        cpu_milli: thousandths of a cpu, 0..; 1000 is one whole cpu.
        memory_bytes: request and limit at once; 0 asks for none and sets no limit.
        gpu_milli: thousandths of a gpu; whole gpus only are handed out by number.
        named: other resources, sorted by name, counts from 1.
        time_limit_us: 0 is without limit.
        nodes: how many nodes the job has at once, from 1; all the amounts above are on each of them.
        nodes_most: with `nodes` of 2 or more it may have up to so many, as have room when it starts; 0: no more.
        tasks_per_node: what the host files say of each node, from 1; nothing else goes by it.
        features: what each of its nodes must have, sorted.
        on: an expression of names of nodes (`model/node_names`) that it may have; empty: any.
    """

    cpu_milli: int = 1000
    memory_bytes: int = 0
    gpu_milli: int = 0
    named: tuple[tuple[str, int], ...] = ()
    time_limit_us: int = 0
    nodes: int = 1
    nodes_most: int = 0
    tasks_per_node: int = 1
    features: tuple[str, ...] = ()
    on: str = ""


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What a node offers in all.

    Attributes:
        cpu_milli: thousandths of a cpu.
        memory_bytes: of RAM that jobs may use together.
        gpus: the ids as CUDA_VISIBLE_DEVICES takes them.
        named: other resources, sorted by name.
    """

    cpu_milli: int
    memory_bytes: int
    gpus: tuple[str, ...] = ()
    named: tuple[tuple[str, int], ...] = ()


class Amounts(msgspec.Struct, frozen=True, kw_only=True):
    """How much of each resource there is, without saying which.

    Attributes:
        cpu_milli: thousandths of a cpu.
        memory_bytes: in whole MiB.
        gpu_milli: thousandths of a gpu.
        named: other resources, sorted by name.
    """

    cpu_milli: int
    memory_bytes: int
    gpu_milli: int
    named: tuple[tuple[str, int], ...]


MIB = 1 << 20


def mebibytes(memory_bytes: int) -> int:
    """Bytes as whole MiB, rounded up: the unit in which memory is counted."""
    return -(-memory_bytes // MIB)

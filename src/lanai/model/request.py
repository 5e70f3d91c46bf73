"""What one job of a list asks for by itself: resources that differ from its batch's, and files to be checked."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from lanai.model.resources import Shape

When = Literal["in", "out"]
Rule = Literal["exists", "exists+", "line", "line+"]


class Check(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A file that must be in order before a job begins (`in`) or after it ended (`out`).

    Attributes:
        when: `in` or `out`.
        rule: `exists`: it is there; `exists+`: and not empty; `line`: it is empty or its last byte is a newline;
            `line+`: it is not empty and its last byte is a newline.
        file: as written in the list: raw bytes, no blanks; where relative, against the job's working directory.
    """

    when: When
    rule: Rule
    file: bytes


class JobRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a job's own `{use ...}` clauses say. None means: as the batch has it.

    Attributes:
        cpu_milli: thousandths of a cpu, from 1.
        memory_bytes: from 1.
        gpu_milli: thousandths of a gpu; 0 asks for none even where the batch asks for some.
        named: other resources, sorted by name; a count of 0 as for gpus. Names that are absent are the batch's.
        time_limit_s: more than 0.
        nodes: from 1.
    """

    cpu_milli: int | None = None
    memory_bytes: int | None = None
    gpu_milli: int | None = None
    named: tuple[tuple[str, int], ...] = ()
    time_limit_s: float | None = None
    nodes: int | None = None

    def over(self, default: Shape) -> Shape:
        """The complete shape of the job, with what it leaves open taken from the batch's `default`."""
        named = dict(default.named) | dict(self.named)
        return msgspec.structs.replace(
            default,
            cpu_milli=default.cpu_milli if self.cpu_milli is None else self.cpu_milli,
            memory_bytes=default.memory_bytes if self.memory_bytes is None else self.memory_bytes,
            gpu_milli=default.gpu_milli if self.gpu_milli is None else self.gpu_milli,
            named=tuple(sorted((name, count) for name, count in named.items() if count)),
            time_limit_us=default.time_limit_us if self.time_limit_s is None else round(self.time_limit_s * 1_000_000),
            nodes=default.nodes if self.nodes is None else self.nodes,
            nodes_most=default.nodes_most if self.nodes is None else 0,
        )


AS_BATCH: Final = JobRequest()
"""The request of a job that has no `{use ...}` clause."""

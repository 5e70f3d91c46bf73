"""One attempt and the lane it waits in: what the starter's other rooms hand to one another.

Standard library only, part of the starter. Values and their small questions; nothing here does anything.
"""

import resource
from collections import deque

from lanai.agent.starter_cgroups import Leaf
from lanai.agent.starter_command import Check, CheckResult, Spec, own_variables
from lanai.agent.starter_hosts import Hosts
from lanai.agent.starter_output import Record, Slot
from lanai.agent.starter_reports import Key

NEVER = 1 << 62


class Lane:
    """A queue of which ``width`` attempts may run at once; the agent's word for how many of a kind fit."""

    __slots__ = ("gpus_each", "gpus_free", "gpus_given", "gpus_used", "number", "queue", "running", "width")

    def __init__(self, number: int) -> None:
        self.number = number
        self.width = 0
        self.running = 0
        self.queue: deque[Key] = deque()
        self.gpus_each = 0
        self.gpus_given: list[str] = []
        self.gpus_free: list[str] = []
        self.gpus_used: set[str] = set()

    def room(self) -> int:
        """How many more may run now; 0 or less for none."""
        room = self.width - self.running
        return min(room, len(self.gpus_free) // self.gpus_each) if self.gpus_each else room

    def enter(self, attempt: "Attempt") -> None:
        """Counts an attempt that has begun."""
        self.running += 1
        if attempt.gpus:
            del self.gpus_free[: len(attempt.gpus)]
            self.gpus_used.update(attempt.gpus)

    def leave(self, attempt: "Attempt") -> None:
        """Counts it out again, and takes back its gpus as far as they are still the lane's."""
        self.running -= 1
        if attempt.gpus:
            self.gpus_used.difference_update(attempt.gpus)
            self.gpus_free.extend(gpu for gpu in attempt.gpus if gpu in self.gpus_given)


class Attempt:
    """An attempt, from the moment that the agent gives it until its end is told.

    ``outcome`` is set once it is being ended by us, ``waited`` (status, usage, when) once its first process is gone.
    ``name`` is how it is told: grant, index, attempt; ``job`` is batch, index and attempt, for names of files;
    ``variables`` are those of the environment that it alone has.
    All that can be made ready for its beginning is made ready when it is given, many at a time: what is done between
    two short jobs is done with cold caches and costs four times as much.
    """

    __slots__ = (
        "checks",
        "deadline_us",
        "extra_environment",
        "gpus",
        "hosts",
        "is_told",
        "job",
        "key",
        "kill_at_us",
        "lane",
        "leaf",
        "mark",
        "name",
        "number",
        "outcome",
        "passed",
        "pid",
        "reason",
        "records",
        "rounds",
        "slot",
        "spec",
        "started_us",
        "step_us",
        "variables",
        "waited",
        "wall_us",
        "words",
    )

    def __init__(self, spec: Spec, lane: Lane, key: Key, number: int, words: list[bytes], starter_mark: str) -> None:
        grant, index = key
        # Turned into text once: what is told of it, its environment and its mark all hold the same numbers.
        index_text = str(index)
        number_text = str(number)
        self.spec = spec
        self.lane = lane
        self.key = key
        self.number = number
        self.job = (spec.batch, index, number)
        self.words = words
        self.mark = mark = f"{starter_mark}.{grant}.{index_text}"
        self.name = f"{grant},{index_text},{number_text}"
        self.variables = own_variables(spec.batch_text, index_text, number_text, mark)
        self.extra_environment: dict[str, str] | None = None
        self.checks: tuple[Check, ...] = ()
        self.hosts: Hosts | None = None
        self.slot: Slot | None = None
        self.leaf: Leaf | None = None
        self.pid = 0
        self.started_us = 0
        self.wall_us = 0
        self.deadline_us = NEVER
        self.gpus: list[str] | None = None
        self.records: list[Record | None] | None = None
        self.passed: list[CheckResult] | None = None
        self.is_told = False
        self.outcome: str | None = None
        self.reason: str | None = None
        self.kill_at_us = NEVER
        self.step_us = NEVER
        self.rounds = 0
        self.waited: tuple[int, resource.struct_rusage, int] | None = None

    @property
    def is_special(self) -> bool:
        """Whether there is more to tell of its end than what the kernel says."""
        return self.outcome is not None or bool(self.checks) or self.records is not None

    @property
    def is_over(self) -> bool:
        """Whether it has ended by itself and only waits to be told."""
        return self.waited is not None and self.outcome is None

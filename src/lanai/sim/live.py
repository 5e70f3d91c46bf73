"""A replay that the hub's own core decides: a policy as sites write it, on one node of as many cpus as the trace says.

Each job of the trace is a batch of its own, since a batch's jobs are submitted together. Its width is its cpus, its
estimate its time limit. Ends are not followed by the fast path: all of one instant comes first, then one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lanai.core.effects import StartAttempts
from lanai.core.events import (
    AttemptsEnded,
    BatchClosed,
    BatchOpened,
    ChunkArrived,
    Event,
    NodeJoined,
    NodeTookStock,
)
from lanai.core.hub import Decision, HubCore
from lanai.core.schedule.rigid import Amount, RigidJob
from lanai.model.batch import BatchSettings
from lanai.model.ids import BatchId, GrantId, Index, NodeId, ShapeId
from lanai.model.job import AttemptResult
from lanai.model.policy import Policy
from lanai.model.resources import Capacity, Shape

SECOND_US: Final = 1_000_000
_NODE: Final = NodeId(1)
_SHAPE: Final = ShapeId(0)
_SETTINGS: Final = BatchSettings()


class LivePlanner:
    """The waiting and the running jobs of a machine under a policy; see `Planner`.

    Args:
        capacity: of the machine.
        policy: what decides.
        users: of each job, by its `seq`.
    """

    def __init__(self, capacity: Amount, policy: Policy, users: Sequence[str]) -> None:
        self._core = HubCore(epoch=1, lease_us=SECOND_US, policy=policy, has_fast_path=False)
        self._users = users
        self._jobs: dict[BatchId, RigidJob] = {}
        self._grants: dict[int, GrantId] = {}
        self._ends = 0
        offered = Capacity(cpu_milli=1000 * capacity, memory_bytes=0)
        self._tell(0, NodeJoined(1, "machine", b"", "", offered, (), "", 0), NodeTookStock(_NODE, []))

    def arrived(self, job: RigidJob) -> None:
        """See `Planner`."""
        now_us = job.submit * SECOND_US
        batch = BatchId(self._core.world.last_batch + 1)
        shape = Shape(cpu_milli=1000 * job.width, time_limit_us=max(1, job.estimate) * SECOND_US)
        self._tell(
            job.submit,
            BatchOpened(0, self._users[job.seq], "", _SETTINGS, b"", b"", now_us),
            ChunkArrived(0, batch, 1, 1, ((1, _SHAPE),), ((_SHAPE, shape),), b"", {}),
            BatchClosed(0, batch, 1, b"", now_us),
        )
        self._jobs[batch] = job

    def ended(self, job: RigidJob, now: int, started: int) -> None:
        """See `Planner`."""
        self._ends += 1
        last_us = (now - started) * SECOND_US
        result = AttemptResult(self._grants.pop(job.seq), Index(1), "ok", 0, 0, started * SECOND_US, last_us)
        self._tell(now, AttemptsEnded(_NODE, self._ends, [result], now * SECOND_US))

    def decide(self, now: int) -> list[RigidJob]:
        """See `Planner`."""
        core, now_us = self._core, now * SECOND_US
        core.world.wall_us = now_us
        started: list[RigidJob] = []
        while core.needs_pass:
            started += self._started(core.decide(now_us))
        return started

    def wake(self) -> int | None:
        """See `Planner`: promises are due where something is expected to end, and nothing ends later than that."""
        return None

    def _tell(self, now: int, *events: Event) -> None:
        self._core.handle(now * SECOND_US, events)

    def _started(self, decision: Decision) -> list[RigidJob]:
        started = []
        for effect in decision.effects:
            if isinstance(effect, StartAttempts):
                job = self._jobs.pop(effect.batch)
                self._grants[job.seq] = effect.grant
                started.append(job)
        return started

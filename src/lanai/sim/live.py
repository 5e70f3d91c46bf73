"""A replay that the hub's own core decides: a policy as sites write it, on one large node or on the nodes there are.

Each job of the trace is a batch of its own, since a batch's jobs are submitted together. Its width is its cpus, its
estimate its time limit. On one node that is EASY to the second where the policy says so. On several nodes a job that
is wider than the largest of them has as many as it takes, with equal parts on each. Ends are not followed by the fast
path: all of one instant comes first, then one pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from lanai.core.effects import Answer, ClaimRoom, StartAttempts
from lanai.core.events import (
    AttemptsEnded,
    BatchClosed,
    BatchOpened,
    ChunkArrived,
    Event,
    NodeJoined,
    NodeTookStock,
    RoomClaimed,
)
from lanai.core.hub import Decision, HubCore
from lanai.core.schedule.promises import HELD_US
from lanai.core.schedule.rigid import Amount, RigidJob
from lanai.model.batch import BatchSettings
from lanai.model.errors import UserError
from lanai.model.ids import BatchId, GrantId, Index, NodeId, ShapeId
from lanai.model.job import AttemptResult
from lanai.model.policy import DEFAULT_SERVICE, Policy
from lanai.model.resources import Capacity, Shape
from lanai.sim.machines import MachineNode
from lanai.sim.swf import Trace

SECOND_US: Final = 1_000_000
_SHAPE: Final = ShapeId(0)
_SETTINGS: Final = BatchSettings()


def site_planner(trace: Trace, policy: Policy, nodes: Sequence[MachineNode] | None, *, predicts: bool) -> LivePlanner:
    """A new planner for a trace under a policy.

    Args:
        trace: its jobs belong to users who are called as its header says, else by their numbers.
        policy: what decides.
        nodes: the machine; None: one node with the processors of the trace.
        predicts: estimates are predicted as the hub does it, also where the policy says that they are not.

    Raises:
        UserError: a job that these nodes can never hold.
    """
    machine = nodes or [MachineNode("machine", trace.procs)]
    sizes = sorted((node.cpus for node in machine), reverse=True)
    for job in trace.jobs:
        if parts_of(job.width, sizes) is None:
            raise UserError(
                f"{trace.file}: job {job.id} asks for {job.width} processors, which these nodes do not have in equal "
                "parts, accepted is what N nodes hold with as many cpus on each",
                code="no_such_nodes",
                hint="lanai simulate TRACE --procs N: one machine of so many processors",
                facts={"job": job.id, "width": job.width},
            )
    users = [trace.users.get(job.user) or str(job.user) for job in trace.jobs]
    return LivePlanner(trace.procs, predicting(policy) if predicts else policy, users, machine)


def parts_of(width: int, sizes: Sequence[int]) -> tuple[int, int] | None:
    """(nodes, cpus on each) of a job: as few nodes as it takes, with equal parts of it, rounded up.

    Args:
        width: its processors.
        sizes: cpus of the machine's nodes, largest first.

    Returns:
        None where no number of nodes has them.
    """
    for count in range(max(1, -(-width // sizes[0])), len(sizes) + 1):
        cpus = -(-width // count)
        if sizes[count - 1] >= cpus:
            return count, cpus
    return None


def predicting(policy: Policy) -> Policy:
    """The same policy, with the estimates of all services predicted."""
    services = {DEFAULT_SERVICE: policy.service(DEFAULT_SERVICE), **policy.services}
    predicted = {name: msgspec.structs.replace(each, estimates="predicted") for name, each in services.items()}
    return msgspec.structs.replace(policy, services=predicted)


class LivePlanner:
    """The waiting and the running jobs of a machine under a policy; see `Planner`.

    Args:
        capacity: of the machine.
        policy: what decides.
        users: of each job, by its `seq`.
        nodes: what the machine is made of, where it is not one node.
    """

    def __init__(
        self, capacity: Amount, policy: Policy, users: Sequence[str], nodes: Sequence[MachineNode] | None = None
    ) -> None:
        self._core = HubCore(epoch=1, lease_us=SECOND_US, policy=policy, has_fast_path=False)
        self._users = users
        self._predicts = policy.service(DEFAULT_SERVICE).estimates == "predicted"
        self._jobs: dict[BatchId, RigidJob] = {}
        self._grants: dict[int, tuple[NodeId, GrantId]] = {}
        self._ends = 0
        machine = nodes or [MachineNode("machine", capacity)]
        self._sizes = sorted((node.cpus for node in machine), reverse=True)
        for number, node in enumerate(machine, 1):
            self._tell(0, _joined(number, node), NodeTookStock(NodeId(number), []))

    def arrived(self, job: RigidJob) -> None:
        """See `Planner`.

        Raises:
            UserError: the policy would have it refused at submission.
        """
        now_us = job.submit * SECOND_US
        batch = BatchId(self._core.world.last_batch + 1)
        parts = parts_of(job.width, self._sizes)
        assert parts is not None
        shape = Shape(cpu_milli=1000 * parts[1], time_limit_us=max(1, job.estimate) * SECOND_US, nodes=parts[0])
        refusal = self._tell(
            job.submit,
            BatchOpened(0, self._users[job.seq], "", _SETTINGS, b"", b"", now_us),
            ChunkArrived(0, batch, 1, 1, ((1, _SHAPE),), ((_SHAPE, shape),), b"", {}),
            BatchClosed(0, batch, 1, b"", now_us),
        )
        if refusal:
            raise UserError(
                f"the policy refuses a job of user {self._users[job.seq]} for {job.width} processors: {refusal}",
                code="refused_by_policy",
                hint="try it under a policy with a wider limit, or on a trace without such jobs",
                facts={"user": self._users[job.seq], "width": job.width, "submit_s": job.submit},
            )
        self._jobs[batch] = job

    def ended(self, job: RigidJob, now: int, started: int) -> None:
        """See `Planner`."""
        self._ends += 1
        node, grant = self._grants.pop(job.seq)
        last_us = (now - started) * SECOND_US
        result = AttemptResult(grant, Index(1), "ok", 0, 0, started * SECOND_US, last_us)
        self._tell(now, AttemptsEnded(node, self._ends, [result], now * SECOND_US))

    def decide(self, now: int) -> list[RigidJob]:
        """See `Planner`."""
        core, now_us = self._core, now * SECOND_US
        core.world.wall_us = now_us
        if self._predicts and any(promise.at_us <= now_us for promise in core.world.promises.values()):
            core.world.needs_pass = True  # what was to end by now runs on
        started: list[RigidJob] = []
        while core.needs_pass:
            started += self._started(now, core.decide(now_us))
        return started

    def wake(self) -> int | None:
        """See `Planner`: when a promise is due, or given up, because a job has outlived its prediction.

        As requested, promises are due where something is expected to end, and nothing ends later than that.
        """
        if not self._predicts:
            return None
        world = self._core.world
        promised = [promise.at_us for promise in world.promises.values()]
        due = [at_us for promise_us in promised for at_us in (promise_us, promise_us + HELD_US) if at_us > world.now_us]
        return -(-min(due) // SECOND_US) if due else None

    def _tell(self, now: int, *events: Event) -> str:
        """Have the core take events in; returns why it refuses one of them, or empty."""
        for effect in self._core.handle(now * SECOND_US, events).effects:
            if isinstance(effect, Answer) and effect.error is not None:
                return effect.error.message
        return ""

    def _started(self, now: int, decision: Decision) -> list[RigidJob]:
        """The jobs that start. Further nodes of those over several keep their room at once."""
        started = []
        claimed: list[RoomClaimed] = []
        for effect in decision.effects:
            if isinstance(effect, StartAttempts):
                job = self._jobs.pop(effect.batch)
                self._grants[job.seq] = effect.node, effect.grant
                started.append(job)
            elif isinstance(effect, ClaimRoom):
                claimed.append(RoomClaimed(effect.node, [effect.grant]))
        if claimed:
            started += self._started(now, self._core.handle(now * SECOND_US, claimed))
        return started


def _joined(number: int, node: MachineNode) -> NodeJoined:
    offered = Capacity(
        cpu_milli=1000 * node.cpus, memory_bytes=node.memory_bytes, gpus=tuple(map(str, range(node.gpus)))
    )
    return NodeJoined(number, node.name, b"", "", offered, node.features, "", 0)

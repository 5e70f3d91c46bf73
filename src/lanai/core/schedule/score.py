"""The score of a line's head: a sum of weighted, capped factors. The higher it is, the sooner it is looked at.

Each factor counts min(cap, value) times its weight; they are summed in the order of the fields of `Weights`:

    age          time waited / 24 h
    xfactor      time waited / max(estimate, 600 s)
    share        1 - rank / leaves of its batch in the order of shares, among those with something waiting
    nodes        nodes asked for
    cpus, memory, gpus   asked for on all its nodes, as a part of all capacity
    cpu_seconds  cpus * nodes * estimate / (all cpus * 24 h)
    user, group, account, service   the number that is configured for it
    target       1 / max(1 min, what is left of the service's target), in minutes; 1 once that has passed
    own          10 / the batch's priority, so that the default counts 1
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from lanai.core.batches import Batch
from lanai.core.schedule.estimate import estimate_us
from lanai.core.schedule.lines import Line
from lanai.core.world import World
from lanai.model.batch import PRIORITY_DEFAULT
from lanai.model.ids import BatchId
from lanai.model.policy import Weights
from lanai.model.vector import CPU, GPU, MEMORY, Vector, field

DAY_US: Final = 86_400_000_000
LEAST_ESTIMATE_US: Final = 600_000_000
MINUTE_US: Final = 60_000_000


class Part(NamedTuple):
    """What one factor adds: its value before the cap, its cap and its weight."""

    name: str
    value: float
    cap: float
    weight: float

    @property
    def points(self) -> float:
        """What it adds to the score."""
        return self.weight * min(self.cap, self.value)


class Scorer:
    """Scores heads of lines at one moment.

    Args:
        world: whose policy and capacity count.
        shares: the factor `share` of each batch; a batch that is not there has 0.
        total: all capacity.
    """

    def __init__(self, world: World, shares: dict[BatchId, float], total: Vector) -> None:
        self._world = world
        self._shares = shares
        self._total = total
        weights, caps = world.policy.weights, world.policy.caps
        self._factors = [
            (name, _FACTORS[name], getattr(caps, name), getattr(weights, name)) for name in Weights.__struct_fields__
        ]
        self._counting = [each for each in self._factors if each[3]]
        self._is_usual = tuple(name for name, *_ in self._counting) == ("age", "xfactor", "share")

    def score(self, batch: Batch, line: Line) -> float:
        """The score of the line's head."""
        if self._is_usual:
            return self._usual(batch, line)
        score = 0.0
        for _, value, cap, weight in self._counting:
            worth = value(self, batch, line)
            score += weight * (worth if worth < cap else cap)
        return score

    def _usual(self, batch: Batch, line: Line) -> float:
        """The same where these three count, to the last bit: half of a pass over many lines would be such sums."""
        caps, weights = self._world.policy.caps, self._world.policy.weights
        waited_us = self._world.wall_us - batch.submitted_at_us
        if waited_us < 0:
            waited_us = 0
        estimate = estimate_us(self._world, line)
        days = waited_us / DAY_US
        times = waited_us / (estimate if estimate > LEAST_ESTIMATE_US else LEAST_ESTIMATE_US)
        place = self._shares.get(batch.id, 0.0)
        score = weights.age * (days if days < caps.age else caps.age)
        score += weights.xfactor * (times if times < caps.xfactor else caps.xfactor)
        return score + weights.share * (place if place < caps.share else caps.share)

    def parts(self, batch: Batch, line: Line) -> list[Part]:
        """All factors, in the order in which they are summed, also those that count nothing."""
        return [Part(name, value(self, batch, line), cap, weight) for name, value, cap, weight in self._factors]

    # -- factors

    def _waited_us(self, batch: Batch) -> int:
        waited_us = self._world.wall_us - batch.submitted_at_us
        return waited_us if waited_us > 0 else 0

    def _age(self, batch: Batch, line: Line) -> float:
        return self._waited_us(batch) / DAY_US

    def _xfactor(self, batch: Batch, line: Line) -> float:
        return self._waited_us(batch) / max(estimate_us(self._world, line), LEAST_ESTIMATE_US)

    def _share(self, batch: Batch, line: Line) -> float:
        return self._shares.get(batch.id, 0.0)

    def _nodes(self, batch: Batch, line: Line) -> float:
        return float(line.shape.nodes)

    def _part(self, line: Line, position: int) -> float:
        whole = field(self._total, position)
        return line.shape.nodes * field(line.vector, position) / whole if whole else 0.0

    def _cpus(self, batch: Batch, line: Line) -> float:
        return self._part(line, CPU)

    def _memory(self, batch: Batch, line: Line) -> float:
        return self._part(line, MEMORY)

    def _gpus(self, batch: Batch, line: Line) -> float:
        return self._part(line, GPU)

    def _cpu_seconds(self, batch: Batch, line: Line) -> float:
        return self._part(line, CPU) * estimate_us(self._world, line) / DAY_US

    def _user(self, batch: Batch, line: Line) -> float:
        return self._world.policy.user(batch.user).priority

    def _group(self, batch: Batch, line: Line) -> float:
        policy = self._world.policy
        group = policy.groups.get(policy.group_of(batch.user))
        return group.priority if group else 0.0

    def _account(self, batch: Batch, line: Line) -> float:
        policy = self._world.policy
        return policy.account(policy.account_of(batch.user, batch.settings.account)).priority

    def _service(self, batch: Batch, line: Line) -> float:
        return self._world.policy.service(batch.settings.service).priority

    def _target(self, batch: Batch, line: Line) -> float:
        target_us = self._world.policy.service(batch.settings.service).target_wait_us
        if not target_us:
            return 0.0
        left_us = target_us - self._waited_us(batch)
        return MINUTE_US / max(MINUTE_US, left_us) if left_us > 0 else 1.0

    def _own(self, batch: Batch, line: Line) -> float:
        return PRIORITY_DEFAULT / batch.priority


_FACTORS: Final[dict[str, Callable[[Scorer, Batch, Line], float]]] = {
    "age": Scorer._age,
    "xfactor": Scorer._xfactor,
    "share": Scorer._share,
    "nodes": Scorer._nodes,
    "cpus": Scorer._cpus,
    "memory": Scorer._memory,
    "gpus": Scorer._gpus,
    "cpu_seconds": Scorer._cpu_seconds,
    "user": Scorer._user,
    "group": Scorer._group,
    "account": Scorer._account,
    "service": Scorer._service,
    "target": Scorer._target,
    "own": Scorer._own,
}

"""Where users do not share nodes, a promise over several nodes keeps them whole, also one that is empty just then."""

from __future__ import annotations

import pytest

from core_recorder import SECOND, Recorder, capacity
from lanai.core.events import NodeHeard, PolicyChanged, TimePassed
from lanai.model.policy import BackfillKind, Policy
from lanai.model.resources import Shape

MINUTE = 60 * SECOND


@pytest.mark.parametrize("backfill", ["easy", "conservative"])
def test_the_promise_of_a_wide_job_is_not_put_off(hub: Recorder, backfill: BackfillKind) -> None:
    """Estimates are exact. One node is empty for a moment when the promise is made anew: then only what the job asks
    for was kept there, another user's jobs came beside it, and the promise could not be kept."""
    hub.feed(PolicyChanged(1, Policy(preset="tight", sharing="single_user", backfill=backfill), hub.now_us))
    hub.take_all()
    for name in "ab":
        hub.join(name, capacity(cpus=4))
    for minutes in (3, 4, 5, 7):
        hub.submit(400, shape=Shape(cpu_milli=1000, time_limit_us=minutes * MINUTE), user="bob")
    hub.decide()
    hub.take_all()
    hub.now_us += MINUTE // 2
    wide = hub.submit(1, user="carl", shape=Shape(cpu_milli=1000, nodes=2, time_limit_us=5 * MINUTE))
    hub.decide()
    promised = []
    for _ in range(100):
        promised += [promise.at_us for line, promise in hub.core.world.promises.items() if line.batch == wide]
        hub.now_us += MINUTE // 2
        hub.feed(*[NodeHeard(node, "", hub.now_us) for node in hub.core.world.nodes], TimePassed(hub.now_us))
        for grant in list(hub.core.world.grants.values()):
            if hub.now_us >= grant.granted_at_us + grant.line.shape.time_limit_us:
                hub.end(grant.node.id, grant.id & 0xFFFFFF, *sorted(grant.members))
        hub.decide()
        hub.take_all()
        if hub.counts(wide) == {"locked": 1}:
            break
    assert promised == sorted(promised, reverse=True)

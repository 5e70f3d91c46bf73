"""Limits: who may have how much at nodes, said with numbers; counters that agree with the grants, come what may."""

from __future__ import annotations

import pytest

from core_recorder import GIB, SECOND, Recorder, capacity
from lanai.core import events as ev
from lanai.core.effects import Answer, StartAttempts
from lanai.core.schedule import limits
from lanai.core.schedule.considered import Considered
from lanai.core.schedule.estimate import estimate_us
from lanai.model.batch import BatchSettings
from lanai.model.ids import BatchId, Index, ShapeId
from lanai.model.policy import (
    EVERYONE,
    AccountPolicy,
    BackfillKind,
    Bound,
    GroupPolicy,
    Limits,
    Policy,
    ServicePolicy,
    UserPolicy,
)
from lanai.model.records import SaveReason
from lanai.model.resources import Shape

JOBS_8_10 = Limits(jobs=Bound(8, 10))


def at_most(soft: int, hard: int = 0, thing: str = "jobs") -> Limits:
    return Limits(**{thing: Bound(soft, hard or soft)})


def settle(hub: Recorder, policy: Policy) -> None:
    """The policy is this from now on."""
    hub.core.world.policy = policy
    limits.rebuild(hub.core.world)


def reason(hub: Recorder, batch: BatchId) -> tuple[object, object]:
    why = hub.core.why(batch, None)
    assert why is not None
    return why["code"], why["verdict"]


def at_nodes(hub: Recorder, *batches: BatchId) -> int:
    return sum(hub.batch(batch).sent for batch in batches)


@pytest.mark.parametrize("backfill", ["easy", "none"])
def test_who_is_at_his_soft_limit_is_told_once_why_he_waits(hub: Recorder, backfill: BackfillKind) -> None:
    """He would have what nobody else can, and there is nothing. Each pass said both, and each was new to the store."""
    settle(hub, Policy(users={"ann": UserPolicy(limits=at_most(0, 9))}, backfill=backfill))
    hub.join("n", capacity(cpus=2))
    hub.submit(4, user="bob")
    hub.start()
    batch = hub.submit(2)
    hub.take_kept(SaveReason)
    for _ in range(3):
        hub.core.world.needs_pass = True
        hub.start()
    code = "no_room" if backfill == "easy" else "limit_user_jobs"
    assert [record.code for record in hub.take_kept(SaveReason) if record.batch == batch] == [code]
    assert reason(hub, batch)[0] == code


def test_a_user_runs_no_more_than_his_limit_in_all_his_batches(hub: Recorder) -> None:
    settle(hub, Policy(users={"ann": UserPolicy(limits=at_most(3))}))
    hub.join("n", capacity(cpus=8))
    first, second = hub.submit(2), hub.submit(4)
    others = hub.submit(9, user="bob")
    hub.start()
    assert (at_nodes(hub, first, second), at_nodes(hub, others)) == (3, 5)
    assert reason(hub, second) == ("limit_user_jobs", "user ann runs 3 of at most 3 jobs (soft 3, hard 3)")


def test_the_hard_limit_is_for_what_others_leave(hub: Recorder) -> None:
    """Within his soft limit everybody comes first; then who is beyond his, up to the hard one."""
    settle(hub, Policy(users={"ann": UserPolicy(limits=JOBS_8_10)}))
    hub.join("n", capacity(cpus=16))
    mine, others = hub.submit(20), hub.submit(7, user="bob")
    hub.start()
    assert (at_nodes(hub, mine), at_nodes(hub, others)) == (9, 7)
    assert reason(hub, mine)[0] == "no_room"


def test_nobody_is_beyond_the_hard_limit_on_an_empty_cluster(hub: Recorder) -> None:
    settle(hub, Policy(users={"ann": UserPolicy(limits=JOBS_8_10)}))
    hub.join("n", capacity(cpus=16))
    mine = hub.submit(20)
    hub.start()
    assert at_nodes(hub, mine) == 10
    assert reason(hub, mine) == ("limit_user_jobs", "user ann runs 10 of at most 10 jobs (soft 8, hard 10)")


@pytest.mark.parametrize(
    ("thing", "most", "count", "text"),
    [
        ("cpus", 5000, 2, "user ann has 4 of at most 5 cpus at nodes (soft 5, hard 5), and this needs 2"),
        ("memory", 3072, 3, "user ann has 3 GiB of at most 3 GiB memory at nodes (soft 3 GiB, hard 3 GiB), "),
        ("gpus", 1500, 3, "user ann has 1.5 of at most 1.5 gpus at nodes (soft 1.5, hard 1.5), and this needs 0.5"),
        ("nodes", 1, 1, "user ann has 1 of at most 1 nodes at nodes"),
    ],
)
def test_each_amount_has_its_limit(hub: Recorder, thing: str, most: int, count: int, text: str) -> None:
    settle(hub, Policy(users={"ann": UserPolicy(limits=at_most(most, thing=thing))}))
    hub.join("n", capacity(cpus=16, gpus=4))
    batch = hub.submit(9, shape=Shape(cpu_milli=2000, memory_bytes=GIB, gpu_milli=500))
    hub.start()
    assert at_nodes(hub, batch) == count
    code, words = reason(hub, batch)
    assert code == f"limit_user_{thing}"
    assert str(words).startswith(text)


def test_a_job_that_has_nothing_of_a_thing_is_not_held_by_its_limit(hub: Recorder) -> None:
    batch, wants = hub.submit(2), hub.submit(1, shape=Shape(gpu_milli=1000))
    settle(hub, Policy(limits=at_most(0, thing="gpus")))
    hub.join("n", capacity(cpus=4, gpus=4))
    hub.start()
    assert (at_nodes(hub, batch), at_nodes(hub, wants)) == (2, 0)
    assert reason(hub, wants)[1] == "the hub has 0 of at most 0 gpus at nodes (soft 0, hard 0), and this needs 1"


def test_groups_accounts_services_batches_and_the_hub_have_limits(hub: Recorder) -> None:
    policy = Policy(
        groups={"lab": GroupPolicy(members=("ann", "bob"), limits=at_most(3))},
        accounts={"grant": AccountPolicy(limits=at_most(2))},
        services={"short": ServicePolicy(limits=at_most(1))},
        batch_limits=at_most(4),
        limits=at_most(8),
    )
    settle(hub, policy)
    hub.join("n", capacity(cpus=32))
    ann, bob = hub.submit(9), hub.submit(9, user="bob")
    charged = hub.submit(9, user="eve", account="grant")
    short = hub.submit(9, user="eve", service="short")
    alone = hub.submit(9, user="joe")
    hub.start()
    assert at_nodes(hub, ann, bob) == 3
    assert (at_nodes(hub, charged), at_nodes(hub, short), at_nodes(hub, alone)) == (2, 1, 2)
    codes = [reason(hub, batch)[0] for batch in (bob, charged, short)]
    assert codes == ["limit_group_jobs", "limit_account_jobs", "limit_service_jobs"]
    assert reason(hub, alone) == ("limit_hub_jobs", "the hub runs 8 of at most 8 jobs (soft 8, hard 8)")
    settle(hub, Policy(batch_limits=at_most(4)))
    hub.start()
    assert at_nodes(hub, alone) == 4
    assert reason(hub, alone)[1] == f"batch {alone} runs 4 of at most 4 jobs (soft 4, hard 4)"


def test_a_star_is_a_limit_of_each_that_is_not_named(hub: Recorder) -> None:
    settle(hub, Policy(users={EVERYONE: UserPolicy(limits=at_most(2)), "eve": UserPolicy(limits=at_most(3))}))
    hub.join("n", capacity(cpus=32))
    batches = [hub.submit(9, user=user) for user in ("ann", "bob", "eve")]
    hub.start()
    assert [at_nodes(hub, batch) for batch in batches] == [2, 2, 3]


def test_what_a_service_limits_counts_instead_of_its_users_limit(hub: Recorder) -> None:
    """And what runs in it leaves the user's own limit alone, but for things that the service does not limit."""
    policy = Policy(
        users={"ann": UserPolicy(limits=Limits(jobs=Bound(2, 2), gpus=Bound(1000, 1000)))},
        services={"big": ServicePolicy(limits=at_most(4))},
    )
    settle(hub, policy)
    hub.join("n", capacity(cpus=32, gpus=8))
    usual, big = hub.submit(9), hub.submit(9, service="big")
    hungry = hub.submit(9, service="big", shape=Shape(gpu_milli=1000))
    hub.start()
    assert (at_nodes(hub, usual), at_nodes(hub, big, hungry), at_nodes(hub, hungry)) == (2, 4, 1)


def test_a_job_beyond_a_hard_limit_by_itself_is_refused_at_submission(hub: Recorder) -> None:
    """It would wait for ever. One that came before the limit waits, and says why."""
    before = hub.submit(1, shape=Shape(cpu_milli=4000))
    settle(hub, Policy(users={"ann": UserPolicy(limits=at_most(3000, thing="cpus"))}))
    shapes = ((ShapeId(0), Shape()), (ShapeId(1), Shape(cpu_milli=4000)))
    hub.feed(ev.BatchOpened(1, "ann", "", BatchSettings(), b"digest", b"blob", hub.now_us))
    hub.feed(ev.ChunkArrived(1, BatchId(2), 1, 2, ((1, ShapeId(0)), (1, ShapeId(1))), shapes, b"", {}))
    hub.take_all()
    hub.feed(ev.BatchClosed(2, BatchId(2), 2, b"digest", hub.now_us))
    (answer,) = hub.take(Answer)
    assert answer.error is not None
    assert (answer.error.code, answer.error.message) == (
        "impossible_request",
        "a job needs 4 cpus, and user ann may have at most 3; nothing was submitted",
    )
    assert list(hub.core.world.batches) == [before]
    hub.restart()
    assert list(hub.core.world.batches) == [before]
    settle(hub, Policy(users={"ann": UserPolicy(limits=at_most(3000, thing="cpus"))}))
    hub.join("n", capacity(cpus=8))
    assert hub.start() == []
    assert reason(hub, before)[0] == "limit_user_cpus"


@pytest.mark.parametrize(
    ("minutes", "words"),
    [(2, "a job needs 240 cpu-seconds, and user ann may have at most 180"), (1, ""), (0, "a job needs 7200 cpu-")],
)
def test_a_job_that_takes_more_cpu_seconds_than_a_hard_limit_is_refused(
    hub: Recorder, minutes: int, words: str
) -> None:
    """It would wait for ever; without a time limit it is thought to run for as long as its service says."""
    settle(hub, Policy(users={"ann": UserPolicy(limits=at_most(180, thing="cpu_seconds"))}))
    shape = Shape(cpu_milli=2000, time_limit_us=60 * minutes * SECOND)
    hub.feed(ev.BatchOpened(1, "ann", "", BatchSettings(shape=shape), b"digest", b"blob", hub.now_us))
    hub.feed(ev.ChunkArrived(1, BatchId(1), 1, 1, ((1, ShapeId(0)),), ((ShapeId(0), shape),), b"", {}))
    hub.take_all()
    hub.feed(ev.BatchClosed(2, BatchId(1), 1, b"digest", hub.now_us))
    (answer,) = hub.take(Answer)
    assert (answer.error.message if answer.error else "").startswith(words)
    assert bool(answer.error) == bool(words)
    assert ("it has no --time" in str(answer.error)) == (minutes == 0)


def test_a_batch_is_not_moved_where_its_jobs_could_never_start(hub: Recorder) -> None:
    """It used to be, and waited for ever."""
    services = {"small": ServicePolicy(limits=at_most(2000, thing="cpus"))}
    settle(hub, Policy(services=services, accounts={"lab": AccountPolicy(limits=at_most(60, thing="cpu_seconds"))}))
    batch = hub.submit(1, shape=Shape(cpu_milli=3000))
    for where, words in (
        ({"service": "small"}, "a job needs 3 cpus, and service small may have at most 2; nothing was changed"),
        ({"account": "lab"}, "a job needs 10800 cpu-seconds, and account lab may have at most 60; it has no --time; "),
    ):
        hub.feed(ev.BatchChanged(1, batch, None, None, hub.now_us, None, **where))
        (answer,) = hub.take(Answer)
        assert answer.error is not None
        assert answer.error.message.startswith(words)
    assert (hub.batch(batch).settings.service, hub.batch(batch).account) == ("", "default")
    small = hub.submit(1, shape=Shape(cpu_milli=2000, time_limit_us=30 * SECOND))
    hub.feed(ev.BatchChanged(1, small, None, None, hub.now_us, None, service="small", account="lab"))
    hub.answer()
    hub.take_all()


def test_a_prediction_refuses_no_job(hub: Recorder) -> None:
    users = {"ann": UserPolicy(limits=at_most(180, thing="cpu_seconds"))}
    settle(hub, Policy(users=users, services={"normal": ServicePolicy(estimates="predicted")}))
    hub.submit(1, shape=Shape(time_limit_us=3600 * SECOND))


def test_a_memory_retry_goes_no_further_than_a_limit_allows(hub: Recorder) -> None:
    """With twice the memory it could never start: it has failed."""
    settle(hub, Policy(users={"ann": UserPolicy(limits=at_most(5 * 1024, thing="memory"))}))
    node = hub.join("n", capacity(gib=64))
    batch = hub.submit(1, shape=Shape(memory_bytes=3 * GIB))
    hub.start()
    hub.end(node, 1, 1, outcome="memory")
    hub.take_all()
    assert hub.counts(batch) == {"failed": 1}


def test_why_tells_how_the_limits_stand(hub: Recorder) -> None:
    settle(hub, Policy(users={"ann": UserPolicy(limits=Limits(jobs=Bound(1, 2), memory=Bound(hard=4096)))}))
    hub.join("n", capacity(cpus=8))
    batch = hub.submit(1, shape=Shape(memory_bytes=GIB))
    hub.start()
    found = hub.core.why(batch, None)
    assert found is not None and isinstance(found["facts"], list)
    assert "user ann has 1 jobs at nodes (soft 1, hard 2)" in found["facts"]
    assert "user ann has 1 GiB memory at nodes (soft none, hard 4 GiB)" in found["facts"]


# -- the fast path


def test_the_fast_path_keeps_limits(hub: Recorder) -> None:
    settle(hub, Policy(users={"ann": UserPolicy(limits=at_most(2))}))
    node = hub.join("n", capacity(cpus=4))
    mine, others = hub.submit(500), hub.submit(2, user="bob", shape=Shape(cpu_milli=1000))
    hub.start()
    hub.end(node, 1, 1, 2, wall_us=1000)
    hub.take_all()
    assert (at_nodes(hub, mine), at_nodes(hub, others)) == (2, 2), "nothing is stacked beyond the limit"


def test_the_fast_path_goes_beyond_soft_limits_only_where_nobody_else_could_go(hub: Recorder) -> None:
    settle(hub, Policy(users={"ann": UserPolicy(limits=Limits(jobs=Bound(1, 2)))}))
    node = hub.join("n", capacity(cpus=2))
    mine = hub.submit(9)
    hub.start()
    assert at_nodes(hub, mine) == 2
    others = hub.submit(9, user="bob")
    hub.decide()
    hub.end(node, 1, 1, wall_us=10 * SECOND)
    assert [start.batch for start in hub.take(StartAttempts)] == [others]
    hub.end(node, 1, 2, wall_us=10 * SECOND)
    assert [start.batch for start in hub.take(StartAttempts)] == [mine], "she has none now"
    hub.take_all()


# -- cpu-seconds and estimates


def test_outstanding_cpu_seconds_fall_as_time_passes(hub: Recorder) -> None:
    """Two cpus for 100 s each are 200 cpu-seconds; after 60 s of the first another begins."""
    settle(hub, Policy(users={"ann": UserPolicy(limits=at_most(300, thing="cpu_seconds"))}))
    node = hub.join("n", capacity(cpus=16))
    batch = hub.submit(5, shape=Shape(cpu_milli=2000, time_limit_us=100 * SECOND))
    (started,) = hub.start()
    assert at_nodes(hub, batch) == 1
    assert reason(hub, batch) == (
        "limit_user_cpu_seconds",
        "user ann has 200 of at most 300 cpu-seconds still to take (soft 300, hard 300), and this needs 200",
    )
    hub.feed(ev.AttemptsStarted(node, [(started.grant, Index(1), hub.now_us)]))
    for _ in range(11):
        hub.wait(5)
        hub.feed(ev.NodeHeard(node, "", hub.now_us))
        hub.decide()
    assert at_nodes(hub, batch) == 2
    hub.take_all()


def test_what_a_wide_job_is_still_to_take_counts_once(hub: Recorder) -> None:
    """Two cpus for 100 s are 200 cpu-seconds, also to those who come before these are counted anew."""
    settle(hub, Policy(users={"ann": UserPolicy(limits=at_most(400, thing="cpu_seconds"))}))
    for name in "abcd":
        hub.join(name, capacity(cpus=1))
    shape = Shape(nodes=2, time_limit_us=100 * SECOND)
    first = hub.submit(1, shape=shape)
    hub.decide()
    hub.take_all()
    second = hub.submit(1, shape=shape)
    hub.decide()
    hub.take_all()
    assert (at_nodes(hub, first), at_nodes(hub, second)) == (1, 1)


def test_an_estimate_is_the_request_else_the_mean_else_the_services(hub: Recorder) -> None:
    settle(hub, Policy(services={"normal": ServicePolicy(estimate_us=70 * SECOND)}))
    world = hub.core.world
    node = hub.join("n", capacity(cpus=4))
    asks, silent = hub.submit(3, shape=Shape(time_limit_us=50 * SECOND)), hub.submit(3)
    line, other = hub.batch(asks).line(0), hub.batch(silent).line(0)
    assert (estimate_us(world, line), estimate_us(world, other)) == (50 * SECOND, 70 * SECOND)
    for start in hub.start():
        hub.end(node, int(start.grant) & 0xFFFF, start.spans[0][0], wall_us=9 * SECOND)
    assert (estimate_us(world, line), estimate_us(world, other)) == (50 * SECOND, 9 * SECOND)
    hub.take_all()


def test_a_predicted_estimate_is_the_mean_of_the_users_last_two_runs(hub: Recorder) -> None:
    settle(hub, Policy(services={"normal": ServicePolicy(estimates="predicted")}))
    world = hub.core.world
    batch = hub.submit(3, shape=Shape(time_limit_us=50 * SECOND))
    line = hub.batch(batch).line(0)
    assert estimate_us(world, line) == 50 * SECOND
    world.observe("ann", [30 * SECOND, 10 * SECOND, 20 * SECOND])
    assert estimate_us(world, line) == 15 * SECOND
    world.observe("ann", [300 * SECOND])
    assert estimate_us(world, line) == 50 * SECOND, "no more than the request"


# -- how many waiting jobs are considered


def test_only_the_first_so_many_waiting_jobs_are_considered(hub: Recorder) -> None:
    settle(hub, Policy(users={EVERYONE: UserPolicy(limits=at_most(2, thing="waiting"))}))
    hub.join("n", capacity(cpus=1))
    first, second = hub.submit(2, shape=Shape(cpu_milli=2000)), hub.submit(2)
    others = hub.submit(2, user="bob")
    (started,) = hub.start()
    assert started.batch == others, "ann's first two find no node large enough, and no further one is looked at"
    hub.take_all()
    assert reason(hub, second) == (
        "limit_user_waiting",
        "of the waiting jobs of user ann the first 2 are considered (soft 2, hard 2), and this one comes later",
    )
    assert reason(hub, first)[0] == "too_large"


@pytest.mark.parametrize("batches", [1, 6])
def test_what_starts_waits_no_longer_so_the_next_ones_are_considered(hub: Recorder, batches: int) -> None:
    """There was room for all six. Three started, and the others were told to wait for those, which were gone."""
    settle(hub, Policy(users={"ann": UserPolicy(limits=at_most(3, thing="waiting"))}))
    hub.join("n", capacity(cpus=8))
    submitted = [hub.submit(6 // batches) for _ in range(batches)]
    hub.start()
    assert at_nodes(hub, *submitted) == 6


def test_who_was_not_considered_is_when_one_that_was_has_started(hub: Recorder) -> None:
    """The wide job and one small one are considered; the other one is when that has started beside the promise."""
    settle(hub, Policy(preset="tight", users={"ann": UserPolicy(limits=at_most(2, thing="waiting"))}))
    hub.join("n", capacity(cpus=4))
    hub.submit(1, user="bob")
    hub.start()
    wide = hub.submit(1, shape=Shape(cpu_milli=4000))
    small, last = hub.submit(1), hub.submit(1)
    hub.start()
    assert [at_nodes(hub, batch) for batch in (wide, small, last)] == [0, 1, 1]


def test_what_a_pass_has_considered_stays_so(hub: Recorder) -> None:
    settle(hub, Policy(users={"ann": UserPolicy(limits=Limits(waiting=Bound(3, 5)))}))
    one, two = (hub.batch(hub.submit(9)).line(0) for _ in range(2))
    considered = Considered(hub.core.world)
    assert [considered.admit(one, most) for most in (1, 2, 2, 1)] == [1, 2, 2, 1]
    assert considered.admit(two, 9) == 1
    assert considered.admit(one, 9) == 2
    assert (considered.admit(one, 9, hard=True), considered.admit(two, 9, hard=True)) == (4, 1)

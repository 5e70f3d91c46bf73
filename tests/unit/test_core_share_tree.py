"""Shares over a tree: accounts in accounts, users in them, batches; use that decays, and what survives a restart."""

from __future__ import annotations

import random
from collections import Counter
from heapq import heappop, heappush
from itertools import pairwise

import msgspec
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from core_recorder import SECOND, Recorder, capacity
from lanai.core.batches import Batch
from lanai.core.events import BatchChanged, NodeHeard, PolicyChanged
from lanai.core.policy import USE
from lanai.core.schedule.leaf import WHOLE, Clock, Leaf
from lanai.core.schedule.lines import Line
from lanai.core.schedule.shares import Turns, share_of
from lanai.core.schedule.tree import ShareTree
from lanai.model.batch import BatchSettings
from lanai.model.ids import BatchId, NodeId, ShapeId
from lanai.model.policy import AccountPolicy, Policy, UserPolicy
from lanai.model.records import SaveAccount, SaveMeta
from lanai.model.resources import Shape
from lanai.model.vector import Layout

HOUR_US = 3600 * SECOND
DAY_US = 24 * HOUR_US
WEEK_US = 7 * DAY_US


class Site:
    """A share tree with batches that want every slot there is, in virtual time; `slots` of one cpu."""

    def __init__(self, policy: Policy, slots: int, seed: int = 1) -> None:
        self.tree = ShareTree(policy)
        self.slots = slots
        self.chance = random.Random(seed)
        self.now_us = 0
        self.batches: list[Batch] = []
        self.lines: dict[Batch, Line] = {}
        self.longest_us: dict[Batch, int] = {}
        self.used_us: Counter[Batch] = Counter()
        self._at_work: list[tuple[int, int, Batch]] = []
        self._started = 0

    def submit(self, account: str, user: str, longest_us: int = HOUR_US, priority: int = 10) -> Batch:
        """A batch without an end, of jobs of a tenth of that to all of it."""
        number = BatchId(len(self.batches) + 1)
        leaf = self.tree.user(account, user)
        batch = Batch(number, user, BatchSettings(priority=priority), b"", Layout(), leaf, 0, account)
        line = self.lines[batch] = Line(number, batch.leaf, ShapeId(0), Shape(), 1, NodeId(0))
        line.price(WHOLE // self.slots)
        self.batches.append(batch)
        self.longest_us[batch] = longest_us
        return batch

    def run(self, for_us: int) -> None:
        until_us = self.now_us + for_us
        self._fill()
        while self._at_work[0][0] <= until_us:
            self._pass_time(self._at_work[0][0])
            _, _, batch = heappop(self._at_work)
            self.lines[batch].book(-1, 0)
            self._fill()
        self._pass_time(until_us)

    def _pass_time(self, now_us: int) -> None:
        for _, _, batch in self._at_work:
            self.used_us[batch] += now_us - self.now_us
        self.now_us = now_us
        self.tree.set(now_us, (batch.leaf for batch in self.batches))

    def _fill(self) -> None:
        turns = Turns(self.batches)
        while len(self._at_work) < self.slots and (batch := turns.next()) is not None:
            turns.charge(self.lines[batch])
            self.lines[batch].book(1, 0)
            self._started += 1
            longest_us = self.longest_us[batch]
            heappush(
                self._at_work, (self.now_us + self.chance.randint(longest_us // 10, longest_us), self._started, batch)
            )


@settings(max_examples=15, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(users=st.integers(2, 7), slots=st.integers(1, 16), seed=st.integers(0, 1000))
def test_equal_users_have_equal_parts_of_a_saturated_day(users: int, slots: int, seed: int) -> None:
    """Whatever the numbers of batches and the lengths of jobs: within the area of one job."""
    site = Site(Policy(), slots, seed)
    has: dict[str, list[Batch]] = {}
    for user in range(users):
        has[f"u{user}"] = [
            site.submit("default", f"u{user}", site.chance.choice([60 * SECOND, 600 * SECOND, HOUR_US]))
            for _ in range(site.chance.randint(1, 3))
        ]
    site.run(DAY_US)
    parts = [sum(site.used_us[batch] for batch in batches) for batches in has.values()]
    assert sum(parts) == slots * DAY_US, "slots stood idle"
    assert max(parts) - min(parts) <= HOUR_US, parts


def parts_of(site: Site, batches: list[Batch]) -> list[float]:
    """What part of all slots each has had so far."""
    return [site.used_us[batch] / (site.slots * site.now_us) for batch in batches]


def test_two_batches_split_what_their_user_has() -> None:
    site = Site(Policy(), slots=8)
    anns = [site.submit("default", "ann"), site.submit("default", "ann", 600 * SECOND)]
    bobs = site.submit("default", "bob")
    site.run(DAY_US)
    assert parts_of(site, [*anns, bobs]) == pytest.approx([0.25, 0.25, 0.5], abs=0.01)


def test_weights_are_kept_at_each_place_of_the_tree() -> None:
    """Accounts 3 to 1; in the first a user against a nested account 1 to 2; batches by 1/priority."""
    policy = Policy(
        accounts={"a": AccountPolicy(weight=3.0), "b": AccountPolicy(), "inner": AccountPolicy(parent="a", weight=2.0)},
        users={"ann": UserPolicy(weight=1.0)},
    )
    site = Site(policy, slots=24)
    ann, in_inner = site.submit("a", "ann"), site.submit("inner", "bob", 600 * SECOND)
    first, second = site.submit("b", "cid", priority=10), site.submit("b", "cid", priority=50)
    site.run(DAY_US)
    assert parts_of(site, [ann, in_inner]) == pytest.approx([0.25, 0.5], abs=0.01)
    assert parts_of(site, [first, second]) == pytest.approx([5 / 24, 1 / 24], abs=0.01)


@settings(max_examples=15, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(seed=st.integers(0, 1000), crowd=st.integers(0, 6))
def test_what_happens_inside_an_account_moves_nothing_between_others(seed: int, crowd: int) -> None:
    """However many users and batches account a has, b and c have the third that is theirs, as it has its own."""
    site = Site(Policy(), 9, seed)
    alone = {account: [site.submit(account, f"{account}1")] for account in "abc"}
    for each in range(crowd):
        long_us = site.chance.choice([60 * SECOND, 600 * SECOND, HOUR_US])
        alone["a"].append(site.submit("a", f"a{site.chance.randint(1, 3)}", long_us, 1 + 5 * each))
    site.run(DAY_US)
    parts = [sum(parts_of(site, batches)) for batches in alone.values()]
    assert parts == pytest.approx([1 / 3] * 3, abs=1 / (24 * 9)), "an hour of a slot of 9 in a day"


def test_who_has_used_less_catches_up() -> None:
    """Ann has had all of it for a day; what Bob gets then he has until both have used the same, or nearly."""
    site = Site(Policy(half_life_us=DAY_US), slots=4)
    ann = site.submit("default", "ann")
    site.run(DAY_US)
    bob = site.submit("default", "bob")
    before = site.used_us[ann]
    site.run(DAY_US // 2)
    assert site.used_us[bob] > 1.5 * (site.used_us[ann] - before)


def test_a_place_of_the_tree_is_ranked_depth_first() -> None:
    """Fair Tree: who is in a better account is before all of a worse one, whatever he has used himself."""
    site = Site(Policy(), slots=4)
    greedy, modest, other = site.submit("a", "ann"), site.submit("b", "bob"), site.submit("b", "cid")
    site.lines[greedy].book(1, 0)
    site.lines[other].book(2, 0)
    assert share_of(site.batches) == {greedy.id: 1.0, modest.id: 1 - 1 / 3, other.id: 1 - 2 / 3}
    assert share_of([]) == {}


def test_turns_and_claims_agree_on_who_is_next() -> None:
    site = Site(Policy(accounts={"inner": AccountPolicy(parent="a")}), slots=100, seed=3)
    for account in ("a", "inner", "b", "inner", "a"):
        site.submit(account, f"u{site.chance.randint(1, 2)}")
    for batch in site.batches:
        site.lines[batch].book(site.chance.randint(0, 9), 0)
    site.tree.set(HOUR_US, [])
    (first, *_) = sorted(site.batches, key=lambda batch: batch.leaf.claim())
    found = Turns(site.batches).next()
    assert found is first and share_of(site.batches)[first.id] == 1.0
    for other in site.batches:
        if other is not first:
            assert other.leaf.turns_before(first.leaf, 1) == 0


# -- use


def test_use_follows_what_is_had_and_halves_in_a_half_life() -> None:
    clock = Clock(WEEK_US)
    leaf = Leaf(clock, 1, 10)
    leaf.charge(WHOLE // 2)
    clock.set(WEEK_US)
    assert leaf.used() / WHOLE == pytest.approx(0.25), "half of what it has had all the time, and nothing before"
    clock.set(50 * WEEK_US)
    assert leaf.used() / WHOLE == pytest.approx(0.5)
    leaf.charge(-(WHOLE // 2))
    for weeks in range(1, 4):
        clock.set((50 + weeks) * WEEK_US)
        assert leaf.used() / WHOLE == pytest.approx(0.5 / 2**weeks)


@given(
    had=st.lists(st.lists(st.integers(0, WHOLE), min_size=3, max_size=3), min_size=1, max_size=5),
    waits_us=st.lists(st.integers(0, 40 * WEEK_US), min_size=1, max_size=20),
)
def test_decay_alone_never_changes_the_order_of_those_who_rest(had: list[list[int]], waits_us: list[int]) -> None:
    """Not in one long wait, not in many, and not where all use is brought to another unit meanwhile."""
    tree = ShareTree(Policy())
    users = [tree.user("default", name) for name in ("ann", "bob", "cid")]
    now_us = 0
    for shares in had:
        for user, share in zip(users, shares, strict=True):
            user.charge(share)
        tree.set(now_us := now_us + HOUR_US, [])
        for user, share in zip(users, shares, strict=True):
            user.charge(-share)
    in_order = sorted(users, key=lambda user: (user.value(), user.number))
    values = [user.value() for user in in_order]
    for wait_us in waits_us:
        tree.set(now_us := now_us + wait_us, [])
        assert all(one.value() <= next_.value() for one, next_ in pairwise(in_order))
    if tree.clock.growth < 2.0**256 and now_us < 256 * WEEK_US:
        assert [user.value() for user in in_order] == values


def test_all_use_is_brought_to_a_smaller_unit_in_time() -> None:
    """The unit grows without end; of a leaf that goes on having the same nothing is lost by that."""
    tree = ShareTree(Policy(half_life_us=60 * SECOND))
    user = tree.user("default", "ann")
    user.charge(WHOLE // 4)
    for minutes in range(0, 100_000, 100):
        tree.set(minutes * 60 * SECOND, [])
        assert tree.clock.growth <= 2.0**256
    assert user.used() / WHOLE == pytest.approx(0.25)
    tree.set(10**9 * 60 * SECOND, [])
    assert user.used() / WHOLE == pytest.approx(0.25), "after two thousand years at once"


# -- another policy, and another hub


def test_weights_and_parents_change_and_use_is_kept() -> None:
    tree = ShareTree(Policy())
    ann, bob = tree.user("a", "ann"), tree.user("b", "bob")
    ann.charge(WHOLE // 2)
    bob.charge(WHOLE // 4)
    tree.set(WEEK_US, [])
    top = AccountPolicy(weight=4.0)
    policy = Policy(
        accounts={"top": top, "a": AccountPolicy(parent="top"), "idle": AccountPolicy()},
        users={"ann": UserPolicy(weight=2.0)},
        half_life_us=DAY_US,
    )
    tree.reshape(policy, WEEK_US, [])
    assert list(tree.accounts) == ["top", "a", "b", "idle"]
    assert [leaf.used() / WHOLE for leaf in tree.accounts.values()] == pytest.approx([0.25, 0.25, 0.125, 0])
    assert [leaf.had for leaf in tree.accounts.values()] == [WHOLE // 2, WHOLE // 2, WHOLE // 4, 0]
    assert ann.path == (tree.accounts["top"], tree.accounts["a"], ann) and ann.weight == 2.0
    bob.charge(-(WHOLE // 4))
    tree.set(WEEK_US + DAY_US, [])
    assert bob.used() / WHOLE == pytest.approx(0.0625), "the new half-life counts from now on"
    tree.reshape(Policy(), WEEK_US + DAY_US, [])
    assert list(tree.accounts) == ["a", "b"] and ann.above is tree.accounts["a"]


def live(hub: Recorder, node: NodeId, seconds: int) -> None:
    """Time passes, and the node is heard."""
    for _ in range(seconds // 10):
        hub.feed(NodeHeard(node, "", hub.now_us))
        hub.wait(10)


def use_in(hub: Recorder) -> list[tuple[str, str, float]]:
    """What the store holds of it."""
    kept = hub.store.kept.meta.get(USE)
    return msgspec.json.decode(kept)[1] if kept else []


def test_use_survives_a_hub_that_is_killed_but_for_a_minute(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=2))
    hub.submit(1, user="ann")
    hub.start()
    live(hub, node, 3600)
    hub.end(node, 1, 1, wall_us=HOUR_US)
    hub.wait(61)
    hub.take_all()
    tree = hub.core.world.tree
    used = tree.users["default", "ann"].used()
    assert used / WHOLE == pytest.approx(0.5 * (1 - 2 ** (-1 / (7 * 24))), rel=1e-3)
    hub.restart()
    again = hub.core.world.tree
    assert again is not tree
    assert again.users["default", "ann"].used() == pytest.approx(used)
    assert again.accounts["default"].used() == pytest.approx(used)


def test_use_is_kept_at_a_planned_stop_and_decays_while_no_hub_is_there(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=2))
    hub.submit(1, user="ann")
    hub.start()
    hub.wait(30)
    hub.store.commit(hub.core.suspend())
    used = hub.core.world.tree.users["default", "ann"].used()
    assert used > 0
    hub.now_us += WEEK_US
    hub.restart()
    assert hub.core.world.tree.users["default", "ann"].used() == pytest.approx(used / 2)
    hub.take_all()


def test_whose_turn_it_is_among_the_batches_of_a_user_survives_the_hub(hub: Recorder) -> None:
    """The batch that has used more stays behind the other, and does not go first because it was there first."""
    node = hub.join("n", capacity(cpus=1))
    first = hub.submit(3, user="ann")
    hub.start()
    second = hub.submit(3, user="ann")
    live(hub, node, 3600)
    hub.end(node, 1, 1, wall_us=HOUR_US)
    hub.store.commit(hub.core.suspend())
    hub.take_all()
    used = hub.batch(first).leaf.used()
    assert used > 0
    hub.now_us += WEEK_US
    hub.restart()
    assert hub.batch(first).leaf.used() == pytest.approx(used / 2)
    assert hub.batch(second).leaf.used() == 0
    assert hub.batch(first).user_leaf.used() == pytest.approx(used / 2)
    assert list(share_of(hub.core.world.batches.values())) == [second, first]


def test_use_as_older_versions_kept_it_is_taken_over(hub: Recorder) -> None:
    hub.submit(1, user="ann")
    hub.store.commit([SaveMeta(USE, f'[{hub.now_us},[["default","ann",0.25]]]')])
    hub.restart()
    assert hub.core.world.tree.users["default", "ann"].used() == 0.25 * WHOLE


def test_use_that_stands_still_is_not_kept_again(hub: Recorder) -> None:
    node = hub.join("n", capacity(cpus=2))
    hub.submit(1, user="ann")
    hub.start()
    live(hub, node, 200)
    hub.end(node, 1, 1)
    hub.wait(100)
    hub.take_all()
    assert len([r for r in hub.take_kept(SaveMeta) if r.name == USE]) in (4, 5)
    hub.wait(600)
    assert [r for r in hub.take_kept(SaveMeta) if r.name == USE] == []
    assert [place[:2] for place in use_in(hub)] == [["default", "ann"]]


def test_a_batch_belongs_to_the_account_that_it_names(hub: Recorder) -> None:
    hub.join("n")
    hub.feed(PolicyChanged(1, Policy(accounts={"physics": AccountPolicy()}), 0))
    hub.answer()
    one, two = hub.submit(1, user="ann", account="physics"), hub.submit(1, user="ann")
    assert (hub.batch(one).account, hub.batch(two).account) == ("physics", "default")
    assert hub.batch(one).leaf.path[0] is hub.core.world.tree.accounts["physics"]
    assert hub.batch(one).user_leaf is not hub.batch(two).user_leaf


def test_the_account_that_is_charged_is_kept(hub: Recorder) -> None:
    """The default of his when he submits, that of a new policy when there is one, and what `set` says."""

    def kept(*batches: BatchId) -> list[str]:
        return [hub.store.kept.opened[batch].account for batch in batches]

    def settle(account: str) -> None:
        named = {name: AccountPolicy() for name in ("physics", "bio")}
        hub.feed(PolicyChanged(1, Policy(users={"ann": UserPolicy(account=account)}, accounts=named), 0))
        hub.answer()

    settle("physics")
    one, two = hub.submit(1), hub.submit(1, account="bio")
    assert kept(one, two) == ["physics", "bio"]
    settle("")
    assert kept(one, two) == ["default", "bio"]
    hub.feed(BatchChanged(1, one, None, None, 0, account="physics"))
    hub.answer()
    assert kept(one, two) == ["physics", "bio"]
    hub.take_all()


def test_the_account_of_a_batch_of_an_older_version_is_kept_at_the_start(hub: Recorder) -> None:
    batch = hub.submit(1, account="default")
    hub.store.commit([SaveAccount(batch, "")])
    hub.restart()
    assert hub.store.kept.opened[batch].account == "default"
    hub.take_kept(SaveAccount)
    hub.restart()
    assert hub.take_kept(SaveAccount) == []

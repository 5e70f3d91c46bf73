"""Another policy is in force whole and at once, survives the hub, and is in the audit trail; the tree as shown."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from core_recorder import Recorder, capacity
from lanai.core import shares as shares_
from lanai.core.effects import StartAttempts
from lanai.core.events import BatchOpened, PolicyChanged
from lanai.core.policy import POLICY
from lanai.core.shares import shares
from lanai.model.access import Caller, Origin, Role
from lanai.model.batch import BatchSettings
from lanai.model.policy import DEFAULT_POLICY, AccountPolicy, Policy, UserPolicy
from lanai.model.records import SaveAudit, SaveEvent, SaveMeta

EVE = Caller("eve", Role.ADMIN, Origin("unix", 0, 42))
ACCOUNTS = Policy(
    depth=7,
    accounts={"physics": AccountPolicy(weight=3.0), "optics": AccountPolicy(parent="physics")},
    users={"ann": UserPolicy(account="optics")},
)


@pytest.fixture
def hub() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.check_nothing_left()


def apply(hub: Recorder, policy: Policy) -> dict[str, object] | None:
    hub.feed(PolicyChanged(1, policy, 5, EVE))
    return hub.answer()


def test_a_policy_is_kept_with_its_row_in_the_trail_and_asks_for_a_pass(hub: Recorder) -> None:
    assert not hub.core.needs_pass
    assert apply(hub, ACCOUNTS) == {"changed": "depth,users,accounts"}
    assert hub.core.world.policy == ACCOUNTS and hub.core.needs_pass
    (row,) = hub.take_kept(SaveAudit)
    assert (row.caller, row.action, row.subject, row.is_refused) == (EVE, "policy.set", "policy", False)
    assert row.before == {"preset": "fair", "backfill": "easy", "depth": 1}
    assert row.after == {
        "preset": "fair",
        "backfill": "easy",
        "depth": 7,
        "accounts": 2,
        "users": 1,
        "changed": "depth,users,accounts",
    }
    (told,) = hub.take_kept(SaveEvent)
    assert (told.kind, told.subject, told.text) == ("policy_changed", "policy", "depth, users, accounts by eve")
    assert [record.name for record in hub.take_kept(SaveMeta)] == [POLICY]


def test_it_is_in_force_after_a_restart(hub: Recorder) -> None:
    apply(hub, ACCOUNTS)
    batch = hub.submit(1, user="ann")
    hub.restart()
    assert hub.core.world.policy == ACCOUNTS
    assert [leaf.number for leaf in hub.batch(batch).leaf.path] == [
        hub.core.world.tree.accounts["physics"].number,
        hub.core.world.tree.accounts["optics"].number,
        hub.core.world.tree.users["optics", "ann"].number,
        batch,
    ]
    hub.take_all()


@pytest.mark.parametrize(
    ("user", "account", "code"),
    [
        ("ann", "", ""),
        ("ann", "default", ""),
        ("ann", "physics", ""),
        ("bob", "optics", ""),
        ("bob", "physics", "may_not_use_account"),
        ("ann", "phisics", "no_such_account"),
        ("ann", "x" * 10_000, "no_such_account"),
        ("ann", "*", "no_such_account"),
    ],
)
def test_a_batch_has_to_name_an_account_that_is_declared(hub: Recorder, user: str, account: str, code: str) -> None:
    """Who could make up accounts would have a part of his own for each."""
    apply(hub, Policy(accounts={"physics": AccountPolicy(users=("ann",)), "optics": AccountPolicy()}))
    hub.feed(BatchOpened(1, user, "", BatchSettings(account=account), b"digest", b"blob", 0))
    if code:
        assert hub.refusal() == code
    else:
        assert hub.answer() == {"batch": 1}


def test_accounts_may_be_made_up_where_the_policy_says_so(hub: Recorder) -> None:
    apply(hub, Policy(accounts={"*": AccountPolicy(weight=2.0, users=("ann",))}))
    batch = hub.submit(1, user="ann", account="anything")
    assert hub.batch(batch).user_leaf.above is hub.core.world.tree.accounts["anything"]
    assert hub.core.world.tree.accounts["anything"].weight == 2.0
    for user, account in (("ann", "any thing"), ("bob", "else")):
        hub.feed(BatchOpened(1, user, "", BatchSettings(account=account), b"digest", b"blob", 0))
        assert hub.refusal() == "no_such_account"


def test_the_same_once_more_changes_nothing(hub: Recorder) -> None:
    apply(hub, ACCOUNTS)
    hub.decide()
    assert apply(hub, ACCOUNTS) == {"changed": ""}
    assert not hub.core.needs_pass
    assert apply(hub, DEFAULT_POLICY) == {"changed": "depth,users,accounts"}
    assert hub.store.kept.meta[POLICY] == ""
    hub.restart()
    assert hub.core.world.policy == DEFAULT_POLICY


def test_batches_go_over_to_the_account_that_their_user_has_now(hub: Recorder) -> None:
    """With what they have at nodes, which the tree accounts for exactly, before and after they end."""
    node = hub.join("n", capacity(cpus=4))
    apply(hub, Policy(accounts={"x": AccountPolicy()}))
    anns, named, bobs = hub.submit(1, user="ann"), hub.submit(1, user="ann", account="x"), hub.submit(1, user="bob")
    hub.start()
    tree = hub.core.world.tree
    apply(hub, ACCOUNTS)
    assert (hub.batch(anns).account, hub.batch(named).account, hub.batch(bobs).account) == ("optics", "x", "default")
    had = {name: leaf.had for name, leaf in tree.accounts.items()}
    one = hub.batch(anns).leaf.had
    assert one > 0 and had == {"default": one, "x": one, "physics": one, "optics": one}
    assert {key: leaf.had for key, leaf in tree.users.items()} == {
        ("default", "ann"): 0,
        ("x", "ann"): one,
        ("default", "bob"): one,
        ("optics", "ann"): one,
    }
    for number in (1, 2, 3):
        hub.end(node, number, 1)
    hub.take_all()
    assert {leaf.had for leaf in (*tree.accounts.values(), *tree.users.values())} == {0}


def test_weights_of_accounts_are_in_force_with_the_next_pass(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=4))
    apply(hub, Policy(accounts={"a": AccountPolicy(), "b": AccountPolicy()}))
    first, second = hub.submit(9, user="ann", account="a"), hub.submit(9, user="bob", account="b")
    apply(hub, Policy(accounts={"a": AccountPolicy(), "b": AccountPolicy(weight=3.0)}))
    hub.decide()
    given = {start.batch: sum(b - a + 1 for a, b in start.spans) for start in hub.take(StartAttempts)}
    assert given == {first: 1, second: 3}


def test_the_tree_as_people_see_it(hub: Recorder) -> None:
    hub.join("n", capacity(cpus=4))
    apply(hub, Policy(accounts={"a": AccountPolicy(), "b": AccountPolicy(weight=3.0)}))
    first, second = hub.submit(9, user="ann", account="a"), hub.submit(9, user="bob", account="b", priority=5)
    hub.submit(1, user="bob", account="b", priority=20)
    hub.decide()
    hub.take_all()
    shown = [(row.depth, row.place, row.name, row.account, row.user) for row in shares(hub.core.world).shares]
    assert shown == [
        (0, "account", "a", "", ""),
        (1, "user", "ann", "a", "ann"),
        (2, "batch", str(first), "a", "ann"),
        (0, "account", "b", "", ""),
        (1, "user", "bob", "b", "bob"),
        (2, "batch", str(second), "b", "bob"),
        (2, "batch", "3", "b", "bob"),
    ]
    by = {row.name: row for row in shares(hub.core.world).shares}
    assert (by["b"].weight, by["b"].part, by["a"].part, by["ann"].part) == (3.0, 0.75, 0.25, 1.0)
    assert (by["2"].weight, by["2"].part) == pytest.approx((1 / 5, 0.8))
    assert sum(row.has for row in by.values() if row.depth == 0) == pytest.approx(1.0)
    waiting = [row for row in shares(hub.core.world).shares if row.place == "batch" and row.waiting]
    assert [row.turn for row in waiting] == list(range(1, len(waiting) + 1))
    assert all(row.turn is None for row in by.values() if not row.waiting)
    assert {row.rank for row in by.values() if row.place == "account"} == {1, 2}


def test_an_account_that_nobody_has_used_is_shown(hub: Recorder) -> None:
    apply(hub, ACCOUNTS)
    assert [(row.name, row.account, row.turn) for row in shares(hub.core.world).shares] == [
        ("physics", "", None),
        ("optics", "physics", None),
    ]


def test_of_very_many_batches_the_first_are_shown_and_the_turns_of_all_are_counted(
    hub: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shares_, "BATCHES", 3)
    for user in ("ann", "bob"):
        for _ in range(4):
            hub.submit(1, user=user)
    shown = shares(hub.core.world)
    assert [(row.name, row.turn) for row in shown.shares] == [
        ("default", 1), ("ann", 1), ("1", 1), ("2", 2), ("3", 3), ("bob", 5),
    ]  # fmt: skip
    assert shown.more == 5

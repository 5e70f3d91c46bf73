"""The policy in force, and the use of accounts, users and batches, which survives the hub.

A policy is taken whole or not at all, and counts from the next pass on. Use is kept once a minute while it changes, and
at a planned stop: a hub that is killed forgets a minute of it at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from lanai.core.batches import Batch
from lanai.core.effects import Answer
from lanai.core.events import PolicyChanged
from lanai.core.schedule import limits
from lanai.core.schedule.leaf import Leaf
from lanai.core.world import SECOND_US, World
from lanai.model.ids import BatchId
from lanai.model.policy import DEFAULT_POLICY, Policy
from lanai.model.policy_text import differs, policy_from_json, policy_to_json
from lanai.model.records import SaveAccount, SaveMeta

POLICY: Final = "policy"
USE: Final = "use"
KEEP_USE_US: Final = 60 * SECOND_US


def recover(world: World, meta: Mapping[str, str]) -> None:
    """Take over what the store holds. To be called before any batch is found again."""
    if kept := meta.get(POLICY):
        put(world, policy_from_json(kept))


def recover_use(world: World, meta: Mapping[str, str]) -> None:
    """Take over what the store holds of the use. To be called after all batches have been found again."""
    world.tree.take_back(meta.get(USE, ""), world.wall_us, _leaves(world))
    world.use_kept = world.tree.total_use()


def _leaves(world: World) -> dict[BatchId, Leaf]:
    return {batch.id: batch.leaf for batch in world.batches.values()}


# -- the policy


def on_changed(world: World, event: PolicyChanged) -> None:
    """Another policy is in force."""
    changed = differs(world.policy, event.policy)
    if changed:
        # None at all is kept as nothing: where what is usual changes with a version, it does so here.
        kept = "" if event.policy == DEFAULT_POLICY else policy_to_json(event.policy)
        world.keep(SaveMeta(POLICY, kept))
        by = f" by {event.caller.user}" if event.caller is not None else ""
        world.tell("policy_changed", "policy", f"{', '.join(changed)}{by}")
        put(world, event.policy)
        world.needs_pass = True
    world.do(Answer(event.request, {"changed": ",".join(changed)}))


def put(world: World, policy: Policy) -> None:
    """Let it be in force from now on; what was used goes on to count. Of that only batches' accounts are kept."""
    world.policy = policy
    world.tree.reshape(policy, world.now_us, [batch.leaf for batch in world.every_batch()])
    for batch in world.every_batch():
        account = policy.account_of(batch.user, batch.settings.account)
        move(world, batch, account)
    limits.rebuild(world)


def move(world: World, batch: Batch, account: str) -> None:
    """The batch belongs to this account from now on; what its user has used stays where it was used.

    Harmless where it does already.
    """
    if account != batch.account:
        batch.user_leaf.charge(-batch.leaf.had)
        batch.account, batch.user_leaf = account, world.leaf_of(account, batch.user)
        world.keep(SaveAccount(batch.id, account))
        batch.user_leaf.priority = batch.priority
        batch.user_leaf.charge(batch.leaf.had)
    batch.leaf.hang(batch.user_leaf)


# -- use


def look_at_use(world: World) -> None:
    """Keep it where that is due."""
    if world.now_us >= world.use_due_us:
        world.use_due_us = world.now_us + KEEP_USE_US
        record = use_record(world)
        if record is not None:
            world.keep(record)


def use_record(world: World) -> SaveMeta | None:
    """The use of users and unfinished batches, to be kept; None where only time has passed since it was kept last."""
    total = world.tree.total_use()
    if total == world.use_kept:
        return None
    world.use_kept = total
    return SaveMeta(USE, world.tree.kept(world.wall_us, _leaves(world)))

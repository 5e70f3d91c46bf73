"""What a site has decided about scheduling: how shares and priority meet, whose share is how large, and limits.

Values only; `policy_file` reads them from TOML. A policy is complete and has been checked: accounts form a tree, every
name that is used is declared, numbers are in their ranges. It is replaced as a whole, never changed.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

Preset = Literal["fair", "tight"]
BackfillKind = Literal["none", "easy", "conservative"]
BackfillOrder = Literal["same", "shortest"]
NodeChoice = Literal["smallest", "first", "most_free"]
Estimates = Literal["requested", "predicted"]
Sharing = Literal["shared", "single_user", "single_job"]
PreemptBy = Literal["none", "requeue", "cancel"]

EVERYONE: Final = "*"
"""Among users, groups, accounts and services: what holds for each that is not named itself."""
NO_ACCOUNT: Final = "default"
"""The account of users who have none."""
UNLIMITED: Final = 1 << 62


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """How much each factor counts in the score of a line's head, or (as caps) how much of it counts at most.

    The order of the fields is the order in which the parts are summed. What each factor is stands in
    `core/schedule/score.py`.
    """

    age: float = 0.0
    xfactor: float = 0.0
    share: float = 0.0
    nodes: float = 0.0
    cpus: float = 0.0
    memory: float = 0.0
    gpus: float = 0.0
    cpu_seconds: float = 0.0
    user: float = 0.0
    group: float = 0.0
    account: float = 0.0
    service: float = 0.0
    target: float = 0.0
    own: float = 0.0


WEIGHTS: Final = Weights(age=1.0, xfactor=0.2, share=2.0)
_NO_CAP: Final = 1e300
CAPS: Final = Weights(**{**dict.fromkeys(Weights.__struct_fields__, _NO_CAP), "xfactor": 100.0})


class Bound(msgspec.Struct, frozen=True, array_like=True):
    """A soft and a hard limit; the soft one is no more than the hard one."""

    soft: int = UNLIMITED
    hard: int = UNLIMITED


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What all jobs of one user, group, account, service or batch, or of the whole hub, may have at nodes at once.

    Attributes:
        jobs: attempts.
        nodes: nodes, one counted for each attempt that is on it.
        cpus: thousandths of a cpu.
        memory: MiB.
        gpus: thousandths of a gpu.
        cpu_seconds: outstanding: cpus times what is left of the estimated run time.
        waiting: of the jobs that wait, so many are considered; the rest are blocked.
    """

    jobs: Bound = Bound()
    nodes: Bound = Bound()
    cpus: Bound = Bound()
    memory: Bound = Bound()
    gpus: Bound = Bound()
    cpu_seconds: Bound = Bound()
    waiting: Bound = Bound()


NO_LIMITS: Final = Limits()


class UserPolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is settled for one user. `account` is his where he names none; `weight` is of his part of an account."""

    weight: float = 1.0
    priority: float = 0.0
    account: str = ""
    limits: Limits = NO_LIMITS


class GroupPolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A group of users. A user who is in several belongs, for this, to the first by name."""

    members: tuple[str, ...] = ()
    priority: float = 0.0
    limits: Limits = NO_LIMITS


class AccountPolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An account. `parent` is another one, or empty: the root. `users` may use it; empty: everybody may."""

    parent: str = ""
    weight: float = 1.0
    priority: float = 0.0
    users: tuple[str, ...] = ()
    limits: Limits = NO_LIMITS


class ServicePolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A class of service.

    Attributes:
        tier: jobs of a higher tier are looked at first, whatever their shares and scores.
        priority: for the factor `service`.
        users, groups, accounts: who may use it; all empty: everybody may.
        estimate_us: of a job that asks for no time and of whose batch nothing has ended.
        estimates: whether a job's estimate is what it asks for, or predicted from the user's last runs.
        target_wait_us: how long its jobs are to wait at most, for the factor `target`; 0: none.
        limits: of all its jobs together; what is set here counts instead of its user's, group's and account's.
        is_preemptor: its jobs may take the place of those of a preemptee of a lower tier.
        is_preemptee: its jobs may have to give way.
        preempt_by: how they do.
        is_dedicated: each of its jobs has its nodes to itself.
        may_backfill: its jobs may start before others that are in front of them.
        reserves_always: each of its lines that finds no room has a reservation, beyond the depth.
    """

    tier: int = 0
    priority: float = 0.0
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    estimate_us: int = 3_600_000_000
    estimates: Estimates = "requested"
    target_wait_us: int = 0
    limits: Limits = NO_LIMITS
    is_preemptor: bool = False
    is_preemptee: bool = False
    preempt_by: PreemptBy = "requeue"
    is_dedicated: bool = False
    may_backfill: bool = True
    reserves_always: bool = False


DEFAULT_SERVICE: Final = "normal"
"""The service of a batch that names none. Where the policy does not declare it, it is as `ServicePolicy()` says."""


class Policy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All of it.

    Attributes:
        preset: `fair`: (service tier, share rank, score); `tight`: (service tier, score).
        backfill: what may start behind a job that finds no room.
        depth: how many lines that find no room have a reservation, 0..; 0 is as `backfill = "none"`.
        backfill_order: in which order those behind are looked at.
        half_life_us: after so long what somebody has used counts half.
        node_choice: which of the nodes that fit.
        sharing: who may be on a node together.
        weights, caps: of the score.
        limits: of all jobs of the hub together.
        batch_limits: of each batch.
    """

    preset: Preset = "fair"
    backfill: BackfillKind = "easy"
    depth: int = 1
    backfill_order: BackfillOrder = "shortest"
    half_life_us: int = 7 * 86_400_000_000
    node_choice: NodeChoice = "smallest"
    sharing: Sharing = "shared"
    weights: Weights = WEIGHTS
    caps: Weights = CAPS
    users: dict[str, UserPolicy] = {}
    groups: dict[str, GroupPolicy] = {}
    accounts: dict[str, AccountPolicy] = {}
    services: dict[str, ServicePolicy] = {}
    limits: Limits = NO_LIMITS
    batch_limits: Limits = NO_LIMITS

    def user(self, name: str) -> UserPolicy:
        """What is settled for a user."""
        return self.users.get(name) or self.users.get(EVERYONE) or _USER

    def group_of(self, user: str) -> str:
        """The group that a user belongs to; empty where he is in none."""
        return min((name for name, group in self.groups.items() if user in group.members), default="")

    def account(self, name: str) -> AccountPolicy:
        """What is settled for an account."""
        return self.accounts.get(name) or self.accounts.get(EVERYONE) or _ACCOUNT

    def service(self, name: str) -> ServicePolicy:
        """What is settled for a service; empty is the default one."""
        if not self.services:
            return _SERVICE
        return self.services.get(name or DEFAULT_SERVICE) or self.services.get(EVERYONE) or _SERVICE

    def account_of(self, user: str, wished: str) -> str:
        """The account that a batch belongs to whose user has wished for one, or (empty) has not."""
        return wished or self.user(user).account or NO_ACCOUNT


_USER: Final = UserPolicy()
_ACCOUNT: Final = AccountPolicy()
_SERVICE: Final = ServicePolicy()
DEFAULT_POLICY: Final = Policy()

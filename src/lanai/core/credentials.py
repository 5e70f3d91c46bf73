"""Who may use which service and which account: looked at once, when a batch is opened or moved to another.

What a policy allowed at submission stays allowed: a batch that is there is not refused because the policy has changed.
"""

from __future__ import annotations

from collections.abc import Iterable

from lanai.model.errors import LanaiError, NotAllowed, NothingThere
from lanai.model.policy import DEFAULT_SERVICE, EVERYONE, NO_ACCOUNT, Policy, ServicePolicy
from lanai.model.policy_file import is_name


def refusal(policy: Policy, user: str, *, account: str, service: str) -> LanaiError | None:
    """Why the user may not have a batch of this account and service, as wished (empty: he has not); None: he may."""
    wished, account = account, policy.account_of(user, account)
    return (_of_account(policy, user, account) if wished else None) or _of_service(policy, user, account, service)


def accounts_of(policy: Policy, user: str) -> list[str]:
    """The accounts that the user may name, by name."""
    named = (name for name, account in policy.accounts.items() if not account.users or user in account.users)
    return sorted({NO_ACCOUNT, policy.account_of(user, ""), *named} - {EVERYONE})


def services_of(policy: Policy, user: str, account: str) -> list[str]:
    """The services that the user may name for a batch of this account, by name."""
    names = {DEFAULT_SERVICE, *policy.services} - {EVERYONE}
    return sorted(name for name in names if _may_use(policy, policy.service(name), user, account))


def is_account(policy: Policy, name: str) -> bool:
    """Whether a batch of somebody's may be in an account of this name."""
    return name in {NO_ACCOUNT, *policy.accounts} - {EVERYONE} or (EVERYONE in policy.accounts and is_name(name))


def is_service(policy: Policy, name: str) -> bool:
    """Whether a batch of somebody's may be in a service of this name."""
    return name in {DEFAULT_SERVICE, *policy.services} - {EVERYONE}


def _of_account(policy: Policy, user: str, account: str) -> LanaiError | None:
    usable = accounts_of(policy, user)
    if account in usable or _is_everyones(policy, user, account):
        return None
    hint = f"{user} may use: {', '.join(usable)}"
    facts: dict[str, str | int | list[str]] = {"account": account, "usable": usable}
    if account in policy.accounts and account != EVERYONE:
        what = f"{user} may not use the account {account}"
        return NotAllowed(what, code="may_not_use_account", hint=hint, facts=facts)
    return NothingThere(f"there is no account {account}", code="no_such_account", hint=hint, facts=facts)


def _is_everyones(policy: Policy, user: str, account: str) -> bool:
    """Whether the policy says something of accounts that it does not name, and the user may use such a one."""
    others = policy.accounts.get(EVERYONE)
    is_other = others is not None and account not in policy.accounts and is_name(account)
    return is_other and others is not None and (not others.users or user in others.users)


def _of_service(policy: Policy, user: str, account: str, service: str) -> LanaiError | None:
    name = service or DEFAULT_SERVICE
    usable = services_of(policy, user, account)
    if name in usable:
        return None
    hint = f"{user} may use: {', '.join(usable)}" if usable else f"no service is open to {user}"
    facts: dict[str, str | int | list[str]] = {"service": name, "account": account, "usable": usable}
    if name in policy.services and name != EVERYONE:
        what = f"{user} may not use the service {name} with the account {account}"
        return NotAllowed(what, code="may_not_use_service", hint=hint, facts=facts)
    return NothingThere(f"there is no service {name}", code="no_such_service", hint=hint, facts=facts)


def _may_use(policy: Policy, service: ServicePolicy, user: str, account: str) -> bool:
    if not (service.users or service.groups or service.accounts):
        return True
    return user in service.users or account in service.accounts or _is_in(policy, user, service.groups)


def _is_in(policy: Policy, user: str, groups: Iterable[str]) -> bool:
    return any(user in policy.groups[group].members for group in groups if group in policy.groups)

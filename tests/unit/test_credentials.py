"""Who may use which service and account: refused at submission, with what he may use."""

import msgspec
import pytest

from core_recorder import Recorder
from lanai.core import events as ev
from lanai.core.credentials import accounts_of, refusal, services_of
from lanai.model.batch import BatchSettings
from lanai.model.policy import (
    DEFAULT_POLICY,
    EVERYONE,
    AccountPolicy,
    GroupPolicy,
    Policy,
    ServicePolicy,
    UserPolicy,
)

POLICY = Policy(
    users={"ann": UserPolicy(account="grant")},
    groups={"lab": GroupPolicy(members=("ann", "bob")), "other": GroupPolicy(members=("eve",))},
    accounts={"grant": AccountPolicy(users=("ann", "bob")), "open": AccountPolicy(), EVERYONE: AccountPolicy()},
    services={
        "urgent": ServicePolicy(users=("eve",), groups=("lab",)),
        "funded": ServicePolicy(accounts=("grant",)),
        "long": ServicePolicy(),
        EVERYONE: ServicePolicy(),
    },
)


@pytest.mark.parametrize(
    ("user", "account", "service", "code"),
    [
        ("ann", "", "", ""),
        ("ann", "", "funded", ""),  # by her own account
        ("ann", "open", "funded", "may_not_use_service"),
        ("bob", "", "funded", "may_not_use_service"),
        ("bob", "grant", "funded", ""),
        ("bob", "", "urgent", ""),  # by his group
        ("eve", "", "urgent", ""),
        ("joe", "", "urgent", "may_not_use_service"),
        ("joe", "grant", "", "may_not_use_account"),
        ("joe", "default", "long", ""),
        ("joe", "nosuch", "", ""),  # the policy says something of accounts that it does not name
        ("joe", "no such", "", "no_such_account"),
        ("joe", "", "nosuch", "no_such_service"),
        ("joe", "*", "", "no_such_account"),
        ("joe", "", "*", "no_such_service"),
        ("joe", "", "normal", ""),
    ],
)
def test_who_may_use_what(user: str, account: str, service: str, code: str) -> None:
    found = refusal(POLICY, user, account=account, service=service)
    assert (found.code if found else "") == code


def test_a_refusal_says_what_one_may_use() -> None:
    assert accounts_of(POLICY, "bob") == ["default", "grant", "open"]
    assert services_of(POLICY, "bob", "grant") == ["funded", "long", "normal", "urgent"]
    found = refusal(POLICY, "joe", account="", service="urgent")
    assert found is not None
    assert str(found) == "joe may not use the service urgent with the account default"
    assert found.hint == "joe may use: long, normal"


def test_without_a_policy_there_is_one_service_and_one_account() -> None:
    assert refusal(DEFAULT_POLICY, "joe", account="default", service="normal") is None
    found = refusal(DEFAULT_POLICY, "joe", account="", service="urgent")
    assert found is not None and (found.code, found.hint) == ("no_such_service", "joe may use: normal")


def test_even_the_default_service_can_be_closed() -> None:
    policy = Policy(services={"normal": ServicePolicy(users=("ann",))})
    found = refusal(policy, "joe", account="", service="")
    assert found is not None and (found.code, found.hint) == ("may_not_use_service", "no service is open to joe")


def test_a_batch_is_refused_as_it_is_opened(hub: Recorder) -> None:
    hub.core.world.policy = POLICY
    settings = BatchSettings(service="urgent")
    hub.feed(ev.BatchOpened(1, "joe", "", settings, b"digest", b"blob", hub.now_us))
    assert hub.refusal() == "may_not_use_service"
    hub.feed(ev.BatchOpened(1, "bob", "", msgspec.structs.replace(settings, account="grant"), b"d", b"b", hub.now_us))
    assert hub.answer() == {"batch": 1}

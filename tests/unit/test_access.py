"""Who may do what, written out a second time by hand; names of users; what strangers can have us write down."""

import pytest

from lanai.model import access
from lanai.model.access import RULES, Action, Caller, Origin, Role, may, may_all, require, require_for, user_name
from lanai.model.allowance import KEYS_MOST, Allowance
from lanai.model.errors import NotAllowed, UserError

TABLE = """
hub.see        yes yes yes
node.see       yes yes yes
batch.submit   yes yes yes
batch.see      own yes yes
batch.hold     own yes yes
batch.release  own yes yes
batch.cancel   own own yes
batch.retry    own own yes
batch.set      own own yes
output.read    own own yes
input.write    own own yes
node.drain     no  yes yes
node.resume    no  yes yes
node.remove    no  no  yes
event.see      no  yes yes
audit.see      no  no  yes
token.see      no  no  yes
token.create   no  no  yes
token.revoke   no  no  yes
policy.see     yes yes yes
policy.set     no  no  yes
reservation.see yes yes yes
reservation.set no yes yes
hub.stop       no  no  yes
"""


def word(role: Role, action: Action) -> str:
    if may_all(role, action):
        return "yes"
    return "own" if may(role, action, is_own=True) else "no"


def test_the_table_is_what_was_agreed() -> None:
    rows = [[str(action), *(word(role, action) for role in Role)] for action in RULES]
    assert rows == [line.split() for line in TABLE.strip().splitlines()]
    assert set(RULES) == set(Action)


def test_roles_are_in_one_order() -> None:
    assert [[a.reaches(b) for b in Role] for a in Role] == [
        [True, False, False], [True, True, False], [True, True, True]
    ]  # fmt: skip


@pytest.mark.parametrize("role", [None, *Role])
@pytest.mark.parametrize("action", Action)
def test_what_is_refused_says_why(role: Role | None, action: Action) -> None:
    caller = Caller("ann", role)
    is_own, is_others = role and may(role, action, is_own=True), role and may(role, action, is_own=False)
    for allowed, check, code in (
        (is_own, lambda: require(caller, action), "needs_role"),
        (is_own, lambda: require_for(caller, action, "ann", "batch 1"), "not_yours"),
        (is_others, lambda: require_for(caller, action, "bob", "batch 1"), "not_yours"),
    ):
        if allowed:
            check()
        else:
            with pytest.raises(NotAllowed) as caught:
                check()
            assert (caught.value.code, caught.value.facts["action"]) == (code, action)


@pytest.mark.parametrize("name", ["ann", "_apt", "lt-a-17", "a.b@ex.org", "DOM\\ann", "machine$", "1ann", "x" * 64])
def test_names_that_users_have(name: str) -> None:
    assert user_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "1000", "-rf", "..", ".ann", "a/b", "a b", "a\n", "ann\0", "a:b", "a,b", "*", "x" * 65, "é", "a$b"]
)
def test_names_that_nobody_has(name: str) -> None:
    with pytest.raises(UserError) as caught:
        user_name(name)
    assert caught.value.code == "bad_user"


def test_origins_in_words() -> None:
    assert str(Origin("unix", 1000, 42)) == "uid 1000 pid 42"
    assert str(Origin("tls", address="10.0.0.9", token=3)) == "10.0.0.9 token 3"
    assert str(Origin("tls", address="10.0.0.9")) == "10.0.0.9"
    assert str(Origin()) == "the hub"
    assert access.NAME_CHARACTERS == 64


def test_a_flood_is_counted_and_not_written_down() -> None:
    allowance = Allowance(burst=3, every_s=10.0)
    assert [allowance.take("a", 0.0) for _ in range(5)] == [0, 0, 0, None, None]
    assert allowance.take("b", 1.0) == 0
    assert [allowance.take("a", 10.0), allowance.take("a", 11.0), allowance.take("a", 20.0)] == [2, None, 1]
    assert [allowance.take("a", 1e6) for _ in range(4)] == [0, 0, 0, None]


def test_very_many_names_share_one_allowance() -> None:
    allowance = Allowance(burst=1, every_s=10.0)
    taken = [allowance.take(f"u{number}", 0.0) for number in range(KEYS_MOST + 50)]
    assert taken.count(0) <= KEYS_MOST + 1
    assert allowance.take("another", 1e6) == 0
    assert len(allowance._kept) <= KEYS_MOST

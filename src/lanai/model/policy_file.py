"""A policy as people write it, in TOML, read and checked: every mistake is named by file and line, all of them at once.

    [schedule]
    preset = "fair"                  # or "tight"
    backfill = "easy"                # or "none", "conservative"
    depth = 1
    half_life = "7d"
    [weights]                        # of the factors of the score; [caps] are their bounds
    age = 1.0
    [accounts.physics]
    weight = 3
    [accounts.optics]
    parent = "physics"
    limits.cpus = [64, 128]          # soft and hard; or one number
    [users.ann]
    account = "optics"
    [services.urgent]
    tier = 1
    accounts = ["physics"]
    [limits]                         # of all jobs together; [batch_limits]: of each batch
    jobs = 10000

`policy_text` writes one.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from typing import Final, NamedTuple, get_args

import msgspec

from lanai.model.access import user_name
from lanai.model.errors import UserError
from lanai.model.policy import (
    CAPS,
    EVERYONE,
    NO_ACCOUNT,
    UNLIMITED,
    WEIGHTS,
    BackfillKind,
    BackfillOrder,
    Estimates,
    Limits,
    NodeChoice,
    Policy,
    PreemptBy,
    Preset,
    Sharing,
    Weights,
)
from lanai.model.policy_lines import Lines, Path, no_toml
from lanai.model.units import UnitError, parse_bytes, parse_count, parse_duration, parse_milli

DEPTH_MOST: Final = 1000
TIER_MOST: Final = 1000
NUMBER_MOST: Final = 1e12
HALF_LIFE_LEAST_S: Final = 60.0
NO_LIMIT: Final = "unlimited"
SHOWN_CHARACTERS: Final = 60

Tree = dict[str, object]
"""A policy, or a part of it, as plain values."""
Read = Callable[[object], object]
"""What a value means; raises `Unfit`."""

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63}")


class Unfit(Exception):
    """A value that is none of what is accepted, which stands here as a phrase."""


class Key(NamedTuple):
    """A key: the field that it is, and how its value is read."""

    field: str
    read: Read


# -- values


def _word(*accepted: str) -> Read:
    def read(value: object) -> object:
        if isinstance(value, str) and value in accepted:
            return value
        raise Unfit("one of " + ", ".join(accepted))

    return read


def _number(accepted: str, fits: Callable[[float], bool]) -> Read:
    def read(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise Unfit(accepted)
        if not abs(value) <= NUMBER_MOST or not fits(value):
            raise Unfit(accepted)
        return float(value)

    return read


def _whole(least: int, most: int) -> Read:
    def read(value: object) -> object:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise Unfit(f"a whole number from {least} to {most}")
        return value

    return read


def _flag(value: object) -> object:
    if isinstance(value, bool):
        return value
    raise Unfit("true or false")


def _duration(least_s: float, accepted: str) -> Read:
    def read(value: object) -> object:
        try:
            duration_s = parse_duration(_text(value))
        except UnitError as error:
            raise Unfit(error.accepted) from None
        if duration_s < least_s:
            raise Unfit(accepted)
        return round(duration_s * 1_000_000)

    return read


def _text(value: object) -> str:
    return "" if isinstance(value, bool) or not isinstance(value, int | float | str) else str(value)


def is_name(text: str) -> bool:
    """Whether it can be the name of an account, a group or a service."""
    return _NAME.fullmatch(text) is not None


def _name(value: object) -> object:
    if isinstance(value, str) and is_name(value):
        return value
    raise Unfit("a name of letters, digits and _ . @ + -, beginning with a letter or digit, of at most 64")


def _user(value: object) -> object:
    try:
        return user_name(value if isinstance(value, str) else "")
    except UserError:
        raise Unfit("the name of a user") from None


def _list(read: Read, accepted: str) -> Read:
    def all_of(value: object) -> object:
        if not isinstance(value, list):
            raise Unfit(accepted)
        try:
            return [read(each) for each in value]
        except Unfit:
            raise Unfit(accepted) from None

    return all_of


def _amount(parse: Callable[[str], float], unit: float = 1) -> Read:
    def read(value: object) -> object:
        if value == NO_LIMIT:
            return UNLIMITED
        try:
            return int(-(-parse(_text(value)) // unit))
        except UnitError as error:
            raise Unfit(error.accepted) from None

    return read


def _cpu_seconds(value: object) -> object:
    """A number, or for one cpu a duration."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < UNLIMITED:
        return value
    return _amount(parse_duration)(value if isinstance(value, str) else "")


def _bound(read: Read) -> Read:
    """One value for both limits, or the soft and the hard one."""

    def bound(value: object) -> object:
        if not isinstance(value, list):
            both = _limit(read, value)
            return [both, both]
        if len(value) != 2:
            raise Unfit("a limit, or [soft, hard]")
        soft, hard = (_limit(read, each) for each in value)
        if soft > hard:
            raise Unfit("[soft, hard] with the soft limit no more than the hard one")
        return [soft, hard]

    return bound


def _limit(read: Read, value: object) -> int:
    found = read(value)
    assert isinstance(found, int)
    return found


_at_least_0: Final = _number("a number, 0 or more", lambda value: value >= 0)
_share: Final = _number("a number above 0", lambda value: value > 0)
_any: Final = _number("a number", lambda value: True)
_names: Final = _list(_name, "a list of names")
_users: Final = _list(_user, "a list of names of users")


def _cap(value: object) -> object:
    return CAPS.age if value == NO_LIMIT else _at_least_0(value)


# -- tables


def _same(**reads: Read) -> dict[str, Key]:
    return {name: Key(name, read) for name, read in reads.items()}


_SCHEDULE: Final = {
    **_same(
        preset=_word(*get_args(Preset)),
        backfill=_word(*get_args(BackfillKind)),
        depth=_whole(0, DEPTH_MOST),
        backfill_order=_word(*get_args(BackfillOrder)),
        node_choice=_word(*get_args(NodeChoice)),
        sharing=_word(*get_args(Sharing)),
    ),
    "half_life": Key("half_life_us", _duration(HALF_LIFE_LEAST_S, "a duration of a minute or more")),
}
_LIMITS: Final = _same(
    jobs=_bound(_amount(parse_count)),
    nodes=_bound(_amount(parse_count)),
    cpus=_bound(_amount(parse_milli)),
    memory=_bound(_amount(parse_bytes, 1 << 20)),
    gpus=_bound(_amount(parse_milli)),
    cpu_seconds=_bound(_cpu_seconds),
    waiting=_bound(_amount(parse_count)),
)
assert tuple(_LIMITS) == Limits.__struct_fields__
_USER: Final = _same(weight=_share, priority=_any, account=_name)
_GROUP: Final = _same(members=_users, priority=_any)
_ACCOUNT: Final = _same(parent=_name, weight=_share, priority=_any, users=_users)
_SERVICE: Final = {
    **_same(
        tier=_whole(-TIER_MOST, TIER_MOST),
        priority=_any,
        users=_users,
        groups=_names,
        accounts=_names,
        estimates=_word(*get_args(Estimates)),
        preempt_by=_word(*get_args(PreemptBy)),
    ),
    "estimate": Key("estimate_us", _duration(1.0, "a duration of a second or more")),
    "target_wait": Key("target_wait_us", _duration(0.0, "")),
    "preemptor": Key("is_preemptor", _flag),
    "preemptee": Key("is_preemptee", _flag),
    "dedicated": Key("is_dedicated", _flag),
    "backfill": Key("may_backfill", _flag),
    "reserve_always": Key("reserves_always", _flag),
}
_NAMED: Final = {
    "accounts": (_ACCOUNT, _name),
    "users": (_USER, _user),
    "groups": (_GROUP, _name),
    "services": (_SERVICE, _name),
}
"""Tables of tables by name: the keys of each, and what may be a name."""
_SECTIONS: Final = ("schedule", "weights", "caps", *_NAMED, "limits", "batch_limits")


def policy_from_toml(text: str, file: str) -> Policy:
    """The policy that a file holds; `file` is its name, for errors.

    Raises:
        UserError: mistakes, all of them, each as `FILE:LINE: what was found, what is accepted`; code `bad_policy`.
    """
    try:
        found: Tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise refusal(file, [no_toml(text, file, str(error))]) from None
    except RecursionError:
        raise refusal(file, [f"{file}:1: found tables in tables without end, accepted is a policy"]) from None
    reading = _Reading(file, Lines(text))
    tree = reading.policy(found)
    reading.check(tree)
    if reading.mistakes:
        raise refusal(file, [mistake for _, mistake in sorted(reading.mistakes)])
    return msgspec.convert(tree, Policy)


def check_policy(tree: Tree, file: str, lines: Lines) -> list[str]:
    """What does not fit together in a policy given as plain values, whose keys stand on these lines."""
    reading = _Reading(file, lines)
    reading.check(tree)
    return [mistake for _, mistake in sorted(reading.mistakes)]


def refusal(file: str, mistakes: list[str]) -> UserError:
    """What is raised where a file has these."""
    said = mistakes[0] if len(mistakes) == 1 else f"{file} has {len(mistakes)} mistakes"
    return UserError(said, code="bad_policy", facts={"file": file, "problems": mistakes})


def _shown(value: object) -> str:
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= SHOWN_CHARACTERS else shown[:SHOWN_CHARACTERS] + "..."


class _Reading:
    """One file; what is wrong with it gathers in `mistakes`, each with its line."""

    def __init__(self, file: str, lines: Lines) -> None:
        self._file = file
        self._lines = lines
        self.mistakes: list[tuple[int, str]] = []

    def wrong(self, path: Path, what: str) -> None:
        line = self._lines.of(path)
        self.mistakes.append((line, f"{self._file}:{line}: {what}"))

    def _unfit(self, path: Path, value: object, accepted: str) -> None:
        self.wrong(path, f"found {'.'.join(path)} = {_shown(value)}, accepted is {accepted}")

    def _unknown(self, path: Path, known: Collection[str]) -> None:
        near = get_close_matches(path[-1], known, n=1, cutoff=0.5)
        if len(path) == 1 and path[0] in _SCHEDULE:
            near = [f"{path[0]} in [schedule]"]
        elif path[0] in ("limits", "batch_limits") and path[-1] in _NAMED:
            near = [f"[{path[-1]}.NAME.limits]"]
        advice = f"did you mean {near[0]}?" if near else "accepted are " + ", ".join(known)
        self.wrong(path, f"found unknown key {'.'.join(path)}, {advice}")

    # -- reading

    def policy(self, found: Tree) -> Tree:
        tree: Tree = {}
        for section, value in found.items():
            if section not in _SECTIONS:
                self._unknown((section,), _SECTIONS)
            elif not isinstance(value, dict):
                self._unfit((section,), value, f"a table, [{section}]")
            elif section == "schedule":
                tree |= self._table((section,), value, _SCHEDULE)
            elif section in ("weights", "caps"):
                tree[section] = self._factors(section, value)
            elif section in _NAMED:
                tree[section] = self._named(section, value)
            else:
                tree[section] = self._table((section,), value, _LIMITS)
        return tree

    def _table(self, path: Path, table: Mapping[str, object], keys: Mapping[str, Key]) -> Tree:
        read: Tree = {}
        for name, value in table.items():
            key = keys.get(name)
            if key is None:
                self._unknown((*path, name), keys)
                continue
            try:
                read[key.field] = key.read(value)
            except Unfit as unfit:
                self._unfit((*path, name), value, str(unfit))
        return read

    def _factors(self, section: str, table: Mapping[str, object]) -> Tree:
        usual, read = (WEIGHTS, _at_least_0) if section == "weights" else (CAPS, _cap)
        names = Weights.__struct_fields__
        given = self._table((section,), table, {name: Key(name, read) for name in names})
        return {**{name: getattr(usual, name) for name in names}, **given}

    def _named(self, section: str, tables: Mapping[str, object]) -> Tree:
        keys, fits = _NAMED[section]
        read: Tree = {}
        for name, table in tables.items():
            path = (section, name)
            if not isinstance(table, dict):
                self._unfit(path, table, f"a table, [{section}.{name}]")
                continue
            if name != EVERYONE:
                try:
                    fits(name)
                except Unfit as unfit:
                    self.wrong(path, f"found [{section}.{name}], accepted is {unfit}")
            read[name] = self._one(path, table, keys)
        return read

    def _one(self, path: Path, table: Mapping[str, object], keys: Mapping[str, Key]) -> Tree:
        """One account, user, group or service."""
        limits = table.get("limits", {})
        read = self._table(path, {key: value for key, value in table.items() if key != "limits"}, keys)
        if isinstance(limits, dict):
            return {**read, "limits": self._table((*path, "limits"), limits, _LIMITS)}
        self._unfit((*path, "limits"), limits, f"a table, [{'.'.join(path)}.limits]")
        return read

    # -- what fits together

    def check(self, tree: Tree) -> None:
        """Whether what is named is there, and whether accounts form a tree."""
        accounts = _tree(tree.get("accounts"))
        declared = {*accounts, NO_ACCOUNT} - {EVERYONE}
        for name, account in accounts.items():
            self._named_there(("accounts", name, "parent"), _tree(account).get("parent"), "account", declared)
        self._loops({name: _tree(account).get("parent") for name, account in accounts.items()})
        for name, user in _tree(tree.get("users")).items():
            path = ("users", name, "account")
            self._named_there(path, (account := _tree(user).get("account")), "account", declared)
            self._lets_in(path, name, _tree(accounts.get(str(account))).get("users"))
        groups = _tree(tree.get("groups"))
        for name, service in _tree(tree.get("services")).items():
            for kind, there in (("account", declared), ("group", set(groups))):
                for one in _listed(_tree(service).get(kind + "s")):
                    self._named_there(("services", name, kind + "s"), one, kind, there)

    def _named_there(self, path: Path, name: object, kind: str, declared: set[str]) -> None:
        if isinstance(name, str) and name not in declared:
            near = get_close_matches(name, sorted(declared), n=1, cutoff=0.5)
            advice = f"did you mean {near[0]}?" if near else f"accepted is one that is declared, by [{kind}s.{name}]"
            self.wrong(path, f"found {'.'.join(path)} = {_shown(name)}, which is no {kind}; {advice}")

    def _lets_in(self, path: Path, user: str, users: object) -> None:
        if user != EVERYONE and _listed(users) and user not in _listed(users):
            self.wrong(path, f"found {'.'.join(path)}, accepted is an account that {user} may use")

    def _loops(self, parents: Mapping[str, object]) -> None:
        told: set[str] = set()
        for name in parents:
            chain = [name]
            while isinstance(parent := parents.get(chain[-1]), str) and parent not in chain:
                chain.append(parent)
            if parent == name and told.isdisjoint(chain):
                told.update(chain)
                loop = " -> ".join([*chain, name])
                self.wrong(("accounts", name, "parent"), f"found a loop of accounts, {loop}, accepted is a tree")


def _tree(value: object) -> Tree:
    return value if isinstance(value, dict) else {}


def _listed(value: object) -> Iterable[object]:
    return value if isinstance(value, list) else ()

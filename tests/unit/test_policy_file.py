"""A policy file: what it means, and every mistake by its line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lanai.model.errors import UserError
from lanai.model.policy import (
    CAPS,
    DEFAULT_POLICY,
    UNLIMITED,
    WEIGHTS,
    AccountPolicy,
    Bound,
    GroupPolicy,
    Limits,
    Policy,
    ServicePolicy,
    UserPolicy,
    Weights,
)
from lanai.model.policy_file import policy_from_toml
from lanai.model.policy_lines import Lines
from lanai.model.policy_text import differs, policy_from_json, policy_shown, policy_to_json, policy_to_toml

WHOLE = """
[schedule]
preset = "tight"
backfill = "conservative"
depth = 64
backfill_order = "same"
half_life = "3d12h"
node_choice = "first"
sharing = "single_user"

[weights]
share = 10
own = 0.5
[caps]
xfactor = 20
age = "unlimited"

[accounts.physics]
weight = 3
priority = -2.5
users = ["ann", "bob"]
limits.cpus = [64, 128.5]
limits.memory = ["64G", "unlimited"]
[accounts.optics]
parent = "physics"
[users.ann]
account = "physics"
weight = 2
[users."*"]
limits.jobs = 100
[groups.staff]
members = ["ann"]
[services.urgent]
tier = 1
priority = 7
groups = ["staff"]
accounts = ["physics", "default"]
estimate = "10m"
estimates = "predicted"
target_wait = "30m"
preemptor = true
preempt_by = "cancel"
dedicated = true
backfill = false
reserve_always = true
limits = { nodes = [1, 2], cpu_seconds = "10h", waiting = 9, gpus = 0.5 }
[services.scavenge]
preemptee = true

[limits]
cpu_seconds = 86400000000
[batch_limits]
jobs = [10, 20]
"""


def test_everything_that_may_stand_in_a_file() -> None:
    assert policy_from_toml(WHOLE, "p.toml") == Policy(
        preset="tight",
        backfill="conservative",
        depth=64,
        backfill_order="same",
        half_life_us=(3 * 24 + 12) * 3_600_000_000,
        node_choice="first",
        sharing="single_user",
        weights=Weights(age=1.0, xfactor=0.2, share=10.0, own=0.5),
        caps=Weights(**{**{name: getattr(CAPS, name) for name in CAPS.__struct_fields__}, "xfactor": 20.0}),
        accounts={
            "physics": AccountPolicy(
                weight=3.0,
                priority=-2.5,
                users=("ann", "bob"),
                limits=Limits(cpus=Bound(64_000, 128_500), memory=Bound(64 << 10, UNLIMITED)),
            ),
            "optics": AccountPolicy(parent="physics"),
        },
        users={
            "ann": UserPolicy(account="physics", weight=2.0),
            "*": UserPolicy(limits=Limits(jobs=Bound(100, 100))),
        },
        groups={"staff": GroupPolicy(members=("ann",))},
        services={
            "urgent": ServicePolicy(
                tier=1,
                priority=7.0,
                groups=("staff",),
                accounts=("physics", "default"),
                estimate_us=600_000_000,
                estimates="predicted",
                target_wait_us=1_800_000_000,
                is_preemptor=True,
                preempt_by="cancel",
                is_dedicated=True,
                may_backfill=False,
                reserves_always=True,
                limits=Limits(
                    nodes=Bound(1, 2), cpu_seconds=Bound(36_000, 36_000), waiting=Bound(9, 9), gpus=Bound(500, 500)
                ),
            ),
            "scavenge": ServicePolicy(is_preemptee=True),
        },
        limits=Limits(cpu_seconds=Bound(86_400_000_000, 86_400_000_000)),
        batch_limits=Limits(jobs=Bound(10, 20)),
    )


@pytest.mark.parametrize("text", ["", "# nothing\n", "[schedule]\n[accounts]\n[weights]\n[caps]\n[limits]\n"])
def test_what_is_not_said_is_as_usual(text: str) -> None:
    assert policy_from_toml(text, "p.toml") == DEFAULT_POLICY


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = [1,\n", "p.toml:2: found no TOML: Invalid value"),
        ("[schedule]\ndepth = 1\ndepth = 2\n", "p.toml:3: found no TOML: Cannot overwrite a value"),
        ("\n[shedule]\n", "p.toml:2: found unknown key shedule, did you mean schedule?"),
        ("preset = 'tight'", "p.toml:1: found unknown key preset, did you mean preset in [schedule]?"),
        ("[schedule]\n\nprset = 1", "p.toml:3: found unknown key schedule.prset, did you mean preset?"),
        ("schedule = 3", "p.toml:1: found schedule = 3, accepted is a table, [schedule]"),
        ('[schedule]\npreset = "fare"', 'p.toml:2: found schedule.preset = "fare", accepted is one of fair, tight'),
        ("[schedule]\ndepth = -1", "p.toml:2: found schedule.depth = -1, accepted is a whole number from 0 to 1000"),
        (
            "[schedule]\ndepth = true",
            "p.toml:2: found schedule.depth = true, accepted is a whole number from 0 to 1000",
        ),
        (
            '[schedule]\nhalf_life = "1s"',
            'p.toml:2: found schedule.half_life = "1s", accepted is a duration of a minute or more',
        ),
        ("[weights]\nage = nan", "p.toml:2: found weights.age = NaN, accepted is a number, 0 or more"),
        ("[weights]\nage = -1", "p.toml:2: found weights.age = -1, accepted is a number, 0 or more"),
        ('[weights]\nage = "1"', 'p.toml:2: found weights.age = "1", accepted is a number, 0 or more'),
        ("[weights]\nxfacter = 1", "p.toml:2: found unknown key weights.xfacter, did you mean xfactor?"),
        ("[users.ann]\nweight = 0", "p.toml:2: found users.ann.weight = 0, accepted is a number above 0"),
        ("[users.ann]\nweight = inf", "p.toml:2: found users.ann.weight = Infinity, accepted is a number above 0"),
        ("[users]\nann = 3", "p.toml:2: found users.ann = 3, accepted is a table, [users.ann]"),
        ("[users.7]", "p.toml:1: found [users.7], accepted is the name of a user"),
        (
            '[users.ann]\naccount = "phisics"\n[accounts.physics]',
            'p.toml:2: found users.ann.account = "phisics", which is no account; did you mean physics?',
        ),
        (
            '[services.x]\ngroups = ["staff"]',
            'p.toml:2: found services.x.groups = "staff", which is no group; accepted is one that is declared, by '
            "[groups.staff]",
        ),
        (
            '[users.ann]\naccount = "a"\n[accounts.a]\nusers = ["bob"]',
            "p.toml:2: found users.ann.account, accepted is an account that ann may use",
        ),
        (
            '[accounts.a]\nparent = "c"\n[accounts.b]\nparent = "a"\n[accounts.c]\nparent = "b"',
            "p.toml:2: found a loop of accounts, a -> c -> b -> a, accepted is a tree",
        ),
        (
            '[accounts.a]\nparent = "a"',
            "p.toml:2: found a loop of accounts, a -> a, accepted is a tree",
        ),
        (
            '[accounts."*"]\nparent = "*"',
            'p.toml:2: found accounts.*.parent = "*", accepted is a name of letters, digits and _ . @ + -, beginning '
            "with a letter or digit, of at most 64",
        ),
        (
            "[limits]\njobs = [2, 1]",
            "p.toml:2: found limits.jobs = [2, 1], accepted is [soft, hard] with the soft limit no more than the hard "
            "one",
        ),
        ("[limits]\njobs = [1]", "p.toml:2: found limits.jobs = [1], accepted is a limit, or [soft, hard]"),
        (
            "[limits]\njobs = -1",
            "p.toml:2: found limits.jobs = -1, accepted is a whole number such as 0, 1 or 20",
        ),
        ("[users.ann]\nlimits = 1", "p.toml:2: found users.ann.limits = 1, accepted is a table, [users.ann.limits]"),
        ("[users.ann]\nlimits.job = 1", "p.toml:2: found unknown key users.ann.limits.job, did you mean jobs?"),
        (
            '[limits]\nmemory = "much"',
            'p.toml:2: found limits.memory = "much", accepted is a size such as 8G, 512M, 1.5g, 64k, 8GiB or a plain '
            "number of bytes",
        ),
    ],
)
def test_mistakes_are_named_by_their_line(text: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        policy_from_toml(text, "p.toml")
    assert (refused.value.facts["problems"], refused.value.message) == ([said], said)
    assert (refused.value.code, refused.value.exit_code) == ("bad_policy", 2)


def test_all_mistakes_are_told_at_once_by_line() -> None:
    text = '[limits]\njobs = -1\n[accounts.a]\nparent = "b"\nweight = -1\n[accounts.b]\nparent = "a"\n'
    with pytest.raises(UserError) as refused:
        policy_from_toml(text, "p.toml")
    problems = refused.value.facts["problems"]
    assert isinstance(problems, list)
    assert [problem.partition(" found")[0] for problem in problems] == ["p.toml:2:", "p.toml:4:", "p.toml:5:"]
    assert refused.value.message == "p.toml has 3 mistakes"


def test_tables_within_tables_without_end_are_refused() -> None:
    with pytest.raises(UserError):
        policy_from_toml("a = " + "[" * 100_000, "p.toml")


@pytest.mark.parametrize(
    ("text", "path", "line"),
    [
        ("a = 1\nb = 2", ("b",), 2),
        ('a = """\nb = 1\n"""\nb = 2', ("b",), 4),
        ("a = [\n  1, # ]\n  2]\nb = 2", ("b",), 4),
        ("a = '''x\n[b]\n'''\n\n[b] # c\nd.e = 1", ("b", "d", "e"), 6),
        ("a = { x = 1, b = 2 }", ("a", "b"), 1),
        ('[x."y z".w]\r\nk = 1\r\n', ("x", "y z", "w", "k"), 2),
        ("[[x]]\nk = 1\n[[x]]\nk = 2", ("x", "k"), 2),
        ("a = '\"'\nb = 2", ("b",), 2),
    ],
)
def test_on_which_line_a_key_stands(text: str, path: tuple[str, ...], line: int) -> None:
    assert Lines(text).of(path) == line


# -- writing


def test_the_usual_policy_written() -> None:
    assert policy_to_toml(DEFAULT_POLICY).startswith('[schedule]\npreset = "fair"\nbackfill = "easy"\ndepth = 1\n')
    assert policy_from_toml(policy_to_toml(DEFAULT_POLICY), "") == DEFAULT_POLICY
    assert DEFAULT_POLICY.weights == WEIGHTS


names = st.from_regex(r"[a-z_][a-z0-9_.@+-]{0,6}", fullmatch=True)
numbers = st.floats(0, 1e9) | st.integers(0, 1000).map(float)
shares = st.floats(1e-6, 1e9)
amounts = st.integers(0, 10**15) | st.just(UNLIMITED)
bounds = st.tuples(amounts, amounts).map(lambda both: Bound(min(both), max(both)))
# What is accepted of a count, of cpus and of memory is less than what the limits of a policy may hold.
counts = st.tuples(st.integers(0, 2**40), st.integers(0, 2**40)).map(lambda both: Bound(min(both), max(both)))
limits = st.builds(
    Limits, jobs=counts, nodes=counts, cpus=counts, memory=counts, gpus=counts, cpu_seconds=bounds, waiting=counts
)
weights = st.builds(Weights, **dict.fromkeys(Weights.__struct_fields__, numbers))
durations = st.integers(60_000_000, 10**14)


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Any that may be in force."""
    accounts: dict[str, AccountPolicy] = {}
    for name in draw(st.lists(names, unique=True, max_size=4)):
        parent = draw(st.sampled_from(["", *accounts]))
        accounts[name] = AccountPolicy(parent=parent, weight=draw(shares), priority=draw(numbers), limits=draw(limits))
    groups = {name: GroupPolicy(members=tuple(draw(st.lists(names, max_size=2)))) for name in draw(st.sets(names))}
    users = st.builds(UserPolicy, weight=shares, account=st.sampled_from(["", "default", *accounts]), limits=limits)
    services = st.builds(
        ServicePolicy,
        tier=st.integers(-9, 9),
        priority=numbers,
        users=st.lists(names, max_size=2).map(tuple),
        groups=st.lists(st.sampled_from(["", *groups]).filter(bool), max_size=2).map(tuple) if groups else st.just(()),
        accounts=st.lists(st.sampled_from(["default", *accounts]), max_size=2).map(tuple),
        estimate_us=durations,
        target_wait_us=durations | st.just(0),
        is_preemptor=st.booleans(),
        may_backfill=st.booleans(),
        limits=limits,
    )
    return Policy(
        preset=draw(st.sampled_from(["fair", "tight"])),
        depth=draw(st.integers(0, 1000)),
        half_life_us=draw(durations),
        weights=draw(weights),
        caps=draw(weights | st.just(CAPS)),
        accounts=accounts,
        users=draw(st.dictionaries(names | st.just("*"), users, max_size=3)),
        groups=groups,
        services=draw(st.dictionaries(names, services, max_size=2)),
        limits=draw(limits),
        batch_limits=draw(limits),
    )


@given(policies())
def test_what_is_written_is_read_back(policy: Policy) -> None:
    assert policy_from_toml(policy_to_toml(policy), "p.toml") == policy
    assert policy_from_json(policy_to_json(policy)) == policy


def test_what_differs_between_two() -> None:
    assert differs(DEFAULT_POLICY, Policy(half_life_us=1, accounts={"a": AccountPolicy()})) == ("half_life", "accounts")
    assert differs(DEFAULT_POLICY, Policy()) == ()


def test_a_policy_for_programs_has_null_where_there_is_no_limit() -> None:
    shown = policy_shown(policy_from_toml('[caps]\nage = 3\n[users.a]\nlimits.jobs = [5, "unlimited"]', ""))
    caps = shown["caps"]
    assert isinstance(caps, dict) and (caps["age"], caps["own"], caps["xfactor"]) == (3.0, None, 100.0)
    assert shown["users"] == {"a": {"limits": {"jobs": [5, None]}}}
    assert shown["depth"] == 1


SECTIONS = ("schedule", "weights", "caps", "accounts", "users", "groups", "services", "limits", "batch_limits", "other")
KEYS = """preset backfill depth half_life age share own parent weight priority users members groups accounts tier
estimate estimates target_wait preemptor preempt_by limits jobs cpus memory cpu_seconds waiting x a-b "*" 7""".split()
VALUES = """1 0 -1 1.5 nan inf -inf true "" "fair" "7d" "64G" "unlimited" "x" "*" [] [1,2] [2,1] ["x"]
[1,"unlimited"] [[1]] {} {jobs=1} {limits={jobs=1}} {parent="x"}
1979-05-27 07:32:00 99999999999999999999 1e300""".split()


@st.composite
def files(draw: st.DrawFn) -> str:
    """TOML that means little."""
    lines = []
    for section in draw(st.lists(st.sampled_from(SECTIONS), unique=True)):
        name = draw(st.sampled_from(["", ".x", ".y.limits", '."*"', ".7"]))
        lines.append(f"[{section}{name}]")
        keys = draw(st.lists(st.sampled_from(KEYS), unique=True, max_size=4))
        lines += [f"{key} = {draw(st.sampled_from(VALUES))}" for key in keys]
    return "\n".join(lines)


@given(files())
def test_whatever_a_file_holds_is_a_policy_or_has_mistakes_by_line(text: str) -> None:
    try:
        policy = policy_from_toml(text, "p.toml")
    except UserError as refused:
        problems = refused.facts["problems"]
        assert isinstance(problems, list)
        lines = text.count("\n") + 1
        assert all(1 <= int(problem.split(":")[1]) <= lines and " found " in problem for problem in problems)
    else:
        assert policy_from_toml(policy_to_toml(policy), "p.toml") == policy

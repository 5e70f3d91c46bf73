"""What a maui.cfg becomes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lanai.model.errors import UserError
from lanai.model.policy import (
    CAPS,
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
from lanai.model.policy_maui import policy_from_maui
from lanai.model.policy_text import policy_to_toml

SITE = """\
# maui.cfg of a site
SERVERHOST   head.example
RMCFG[base]  TYPE=PBS
ADMIN1 root

QUEUETIMEWEIGHT 1      # minutes
XFACTORWEIGHT   2
FSWEIGHT        10
FSUSERWEIGHT    2
FSPOLICY        DEDICATEDPS%
FSINTERVAL      24:00:00
FSDEPTH         7
FSDECAY         0.80

BACKFILLPOLICY    BESTFIT
RESERVATIONPOLICY CURRENTHIGHEST
RESERVATIONDEPTH  4
NODEALLOCATIONPOLICY MINRESOURCE
NODEACCESSPOLICY  SINGLEUSER
PREEMPTPOLICY     CANCEL

USERCFG[DEFAULT]  FSTARGET=10.0 MAXJOB=20,40
USERCFG[ann]      FSTARGET=25.0+ PRIORITY=-100 ADEF=physics \\
                  QLIST=urgent
GROUPCFG[staff]   PRIORITY=10 FSTARGET=40 MAXPROC=64
ACCOUNTCFG[physics] FSTARGET=50 MAXPS=360000 QLIST=urgent,low
CLASSCFG[batch]   PRIORITY=1 MAXJOB[USER]=2
QOSCFG[urgent]    PRIORITY=1000 QFLAGS=PREEMPTOR:IGNSYSTEM QTTARGET=1:00:00 OMAXJOB=5
QOSCFG[low]       QFLAGS=PREEMPTEE,NOBF MAXPE=7
SYSTEMCFG         MAXPROC=512
"""


def test_a_whole_site() -> None:
    policy, left_out = policy_from_maui(SITE, "maui.cfg")
    day_s = 86_400
    assert policy == Policy(
        preset="tight",
        backfill="easy",
        backfill_order="same",
        depth=4,
        half_life_us=policy.half_life_us,
        node_choice="smallest",
        sharing="single_user",
        weights=Weights(age=1440.0, xfactor=2.0, share=2000.0),
        accounts={"physics": AccountPolicy(weight=50.0, limits=Limits(cpu_seconds=Bound(360_000, 360_000)))},
        users={
            "*": UserPolicy(weight=10.0, limits=Limits(jobs=Bound(20, 40))),
            "ann": UserPolicy(weight=25.0, priority=-100.0, account="physics", limits=Limits(jobs=Bound(20, 40))),
        },
        groups={"staff": GroupPolicy(priority=10.0, limits=Limits(cpus=Bound(64_000, 64_000)))},
        services={
            "batch": ServicePolicy(priority=1.0, preempt_by="cancel"),
            "urgent": ServicePolicy(
                priority=1000.0,
                users=("ann",),
                accounts=("physics",),
                is_preemptor=True,
                target_wait_us=3_600_000_000,
                limits=Limits(jobs=Bound(5, 5)),
                preempt_by="cancel",
            ),
            "low": ServicePolicy(accounts=("physics",), is_preemptee=True, may_backfill=False, preempt_by="cancel"),
        },
        limits=Limits(cpus=Bound(512_000, 512_000)),
    )
    assert policy.half_life_us / 1e6 == pytest.approx(3.106 * day_s, rel=1e-3), "0.8 ** 3.106 is a half"
    assert left_out == [
        "maui.cfg:2: SERVERHOST   head.example: a policy has nothing like it",
        "maui.cfg:3: RMCFG[base]  TYPE=PBS: a policy has nothing like it",
        "maui.cfg:4: ADMIN1 root: a policy has nothing like it",
        "maui.cfg:15: BACKFILLPOLICY    BESTFIT: taken as FIRSTFIT: there is no other search",
        "maui.cfg:23: USERCFG[ann] FSTARGET=25.0+: taken as 25.0: a share is aimed at from both sides, and is no cap",
        "maui.cfg:25: GROUPCFG[staff] FSTARGET=40: only accounts and users have shares",
        "maui.cfg:25: GROUPCFG[staff]: nobody is in it yet: name its `members` under [groups.staff]",
        "maui.cfg:27: CLASSCFG[batch] MAXJOB[USER]=2: a policy has nothing like it",
        "maui.cfg:28: QOSCFG[urgent] QFLAGS=PREEMPTOR:IGNSYSTEM: a service has no flag IGNSYSTEM",
        "maui.cfg:29: QOSCFG[low] MAXPE=7: a policy has nothing like it",
    ]
    assert policy_from_toml(policy_to_toml(policy), "p.toml") == policy


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("FSPOLICY NONE", "shares are always by dominant resources; `share = 0` under [weights] leaves them out"),
        ("RESERVATIONDEPTH[3] 4", "there is one depth for all services"),
        ("NODEALLOCATIONPOLICY FASTEST", "there are MINRESOURCE, FIRSTAVAILABLE, CPULOAD"),
        ("PREEMPTPOLICY SUSPEND", "there are REQUEUE, CANCEL"),
        ("USERCFG[ann]", "it says nothing"),
        ("USERCFG[7] PRIORITY=3", "this is no name"),
        ("SYSTEMCFG PRIORITY=3", "a policy has nothing like it"),
        ("USERCFG[ann] FSTARGET=0", "a share is a number above 0"),
        ("USERCFG[ann] QLIST=a/b", "this is no name"),
        ("NODEWEIGHT -3", "a policy takes numbers from 0 to 1e+12 there"),
        ("USERCFG[ann] MAXPROC=1e15", "a policy takes numbers from 0 to 1e+12 there"),
        ("USERCFG[ann] PRIORITY=-1e13", "a policy takes numbers from -1e+12 to 1e+12 there"),
        ("QOSCFG[a] QTTARGET=99999:00:00:00", "a policy takes times up to ten years"),
    ],
)
def test_what_cannot_be_taken_over_says_why(line: str, why: str) -> None:
    _, left_out = policy_from_maui(f"\n{line}\n", "m")
    (said,) = left_out
    assert said.startswith("m:2: ") and said.endswith(f": {why}")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("= 3", "this is no line of a maui.cfg"),
        ("FSDEPTH", "it has no value"),
        ("FSDECAY x", "accepted is a number"),
        ("FSDECAY nan", "accepted is a number"),
        ("QUEUETIMEWEIGHT 1 2 3", "found 2 3 after the value, accepted is one"),
        ("FSINTERVAL 1:2:3:4:5", "accepted is a time, [[[DD:]HH:]MM:]SS"),
        ("QOSCFG[a] QTTARGET=soon", "accepted is a time, [[[DD:]HH:]MM:]SS"),
        ("RESERVATIONDEPTH four", "accepted is a number"),
        ("USERCFG[ann] PRIORITY=high", "accepted is a number"),
        ("USERCFG[ann] PRIORITY=", "accepted is a number"),
        ("USERCFG[ann] MAXJOB=3,2", "accepted is a limit, or soft,hard with the soft one no more than the hard one"),
        ("USERCFG[ann] MAXJOB=1,2,3", "accepted is a limit, or soft,hard with the soft one no more than the hard one"),
        ("USERCFG[ann] MAXJOB=many", "accepted is a number"),
        ("USERCFG[ann] FSTARGET=much", "accepted is a number, and perhaps one of + - ^ % after it"),
        ("USERCFG[ann] MAXJOB 3", "found MAXJOB 3, accepted is NAME=VALUE"),
        ("USERCFG[ann] well PRIORITY=3", "found well, accepted is NAME=VALUE"),
        ("QUEUETIMEWEIGHT 1e12", "with SERVICEWEIGHT it becomes 1.44e+15, accepted is at most 1e+12"),
    ],
)
def test_a_mistake_is_refused(line: str, why: str) -> None:
    """It was left out as if a policy had no place for it, and the rest of the file was printed as the policy."""
    with pytest.raises(UserError) as raised:
        policy_from_maui(f"\n{line}\n", "m")
    assert raised.value.exit_code == 2
    (said,) = raised.value.facts["problems"]  # type: ignore[misc]
    assert said.startswith("m:2: ") and said.endswith(f": {why}")


def test_all_mistakes_are_named_by_their_lines() -> None:
    with pytest.raises(UserError, match=r"^m has 3 mistakes$") as raised:
        policy_from_maui("FSDECAY x\nRMPOLLINTERVAL 60\nUSERCFG[a] MAXJOB=1,0 \\\n PRIORITY=b\n", "m")
    assert [said.split(" ")[0] for said in raised.value.facts["problems"]] == ["m:1:", "m:3:", "m:3:"]  # type: ignore[union-attr]


def test_the_longest_windows_make_the_longest_half_life() -> None:
    policy, _ = policy_from_maui("FSINTERVAL 3000:00:00:00\nFSDEPTH 1000\n", "m")
    assert policy_from_toml(policy_to_toml(policy), "p") == policy


def test_windows_that_count_the_same_have_a_half_life_of_half_their_length() -> None:
    assert policy_from_maui("FSDEPTH 10\nFSINTERVAL 1:00:00\n", "m")[0].half_life_us == 5 * 3_600_000_000


def test_what_maui_does_where_nothing_is_said() -> None:
    """First come, first served: one point a minute of waiting, and nothing else."""
    usual = Policy(preset="tight", backfill_order="same", weights=Weights(age=1440.0))
    assert policy_from_maui("", "m") == (usual, [])


def test_a_service_in_the_list_of_all_is_open_to_all() -> None:
    policy, _ = policy_from_maui("USERCFG[ann] QLIST=a\nUSERCFG[DEFAULT] QLIST=a\nGROUPCFG[g] QLIST=b\n", "m")
    assert policy.services == {"a": ServicePolicy(), "b": ServicePolicy(groups=("g",))}


def test_what_default_says_counts_for_all_who_do_not_say_it_themselves() -> None:
    """Our `*` is for those who are not named at all: who only had a priority of his own would have lost his limit."""
    text = """
    USERCFG[ann] PRIORITY=5 MAXPROC=8
    USERCFG[DEFAULT] MAXJOB=3 MAXPROC=4 FSTARGET=10
    USERCFG[bob] FSTARGET=20
    CLASSCFG[DEFAULT] MAXJOB=7
    CLASSCFG[batch] PRIORITY=1
    QOSCFG[high] PRIORITY=2
    GROUPCFG[DEFAULT] PRIORITY=6
    """
    policy, left_out = policy_from_maui(text, "m")
    limits = Limits(jobs=Bound(3, 3), cpus=Bound(4000, 4000))
    assert policy.users == {
        "ann": UserPolicy(weight=10.0, priority=5.0, limits=Limits(jobs=Bound(3, 3), cpus=Bound(8000, 8000))),
        "bob": UserPolicy(weight=20.0, limits=limits),
        "*": UserPolicy(weight=10.0, limits=limits),
    }
    assert policy.services == {
        "batch": ServicePolicy(priority=1.0, limits=Limits(jobs=Bound(7, 7))),
        "high": ServicePolicy(priority=2.0),
        "*": ServicePolicy(limits=Limits(jobs=Bound(7, 7))),
    }
    assert (policy.groups, left_out) == ({}, [])


def test_caps_are_those_of_our_factors() -> None:
    """Maui counts queue time in minutes, and 0 is no cap."""
    policy, left_out = policy_from_maui("QUEUETIMECAP 720\nXFACTORCAP 0\nNODECAP 8\n", "m")
    assert (policy.caps.age, policy.caps.xfactor, policy.caps.nodes, policy.caps.share) == (
        *(0.5, CAPS.age, 8.0, CAPS.share),
    )
    assert left_out == []


WORDS = """USERCFG[ann] QOSCFG[x] ACCOUNTCFG[DEFAULT] FSTARGET= MAXJOB= 1 2,1 QLIST= x ADEF= physics # FSDECAY 0.5 -
FSINTERVAL 00:10 RESERVATIONDEPTH [ ] = ,""".split()
words = st.sampled_from([*WORDS, " ", "\n", "\\\n"])


@given(st.lists(words, max_size=40).map("".join))
def test_whatever_stands_there_becomes_a_policy_or_is_refused(text: str) -> None:
    try:
        policy, _ = policy_from_maui(text, "m")
    except UserError:
        return
    assert policy_from_toml(policy_to_toml(policy), "p") == policy

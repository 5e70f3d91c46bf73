"""What a policy becomes of a maui.cfg; every line that cannot be taken over is named, with the reason.

What a policy has no place for is left out, and the rest is taken over. A mistake is another thing: a value that is not
what Maui takes there. Then nothing is, since what the line was to say is not known; all mistakes are named together.

Maui's fair share is flat: a target for each user, account, class. Its targets become weights. Its use is counted in
windows that are weighted by a decay; the half-life is made of them. Its score is the order, so the preset is `tight`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Final

import msgspec

from lanai.model.access import user_name
from lanai.model.errors import UserError
from lanai.model.policy import CAPS, EVERYONE, WEIGHTS, Policy
from lanai.model.policy_file import NUMBER_MOST, Tree, check_policy, refusal
from lanai.model.policy_lines import Lines
from lanai.model.units import MAX_SECONDS

_LINE: Final = re.compile(r"([A-Za-z0-9_]+)(?:\[([^\]]*)\])?[ \t=]*(.*)")
_VALUE: Final = re.compile(r'([A-Za-z0-9_]+(?:\[[^\]]*\])?)[ \t]*\+?=[ \t]*("[^"]*"|[^\s]*)')
_TARGET: Final = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)([-+^%]*)")
_KINDS: Final = {
    "USERCFG": "users",
    "GROUPCFG": "groups",
    "ACCOUNTCFG": "accounts",
    "CLASSCFG": "services",
    "QOSCFG": "services",
}
_LIMITS: Final = {
    "MAXJOB": ("jobs", 1),
    "MAXNODE": ("nodes", 1),
    "MAXPROC": ("cpus", 1000),
    "MAXMEM": ("memory", 1),
    "MAXPS": ("cpu_seconds", 1),
    "MAXIJOB": ("waiting", 1),
}
_FLAGS: Final = {
    "PREEMPTOR": ("is_preemptor", True),
    "PREEMPTEE": ("is_preemptee", True),
    "DEDICATED": ("is_dedicated", True),
    "NOBF": ("may_backfill", False),
    "RESERVEALWAYS": ("reserves_always", True),
}
_NODE_CHOICE: Final = {"MINRESOURCE": "smallest", "FIRSTAVAILABLE": "first", "CPULOAD": "most_free"}
_SHARING: Final = {"SHARED": "shared", "SINGLEUSER": "single_user", "SINGLEJOB": "single_job"}
_PREEMPT: Final = {"REQUEUE": "requeue", "CANCEL": "cancel"}
_COMPONENTS: Final = ("SERVICEWEIGHT", "CREDWEIGHT", "FSWEIGHT", "RESWEIGHT", "RESOURCEWEIGHT")
_FACTORS: Final = {
    "QUEUETIMEWEIGHT": ("age", "SERVICEWEIGHT", 1440.0),
    "XFACTORWEIGHT": ("xfactor", "SERVICEWEIGHT", 1.0),
    "USERWEIGHT": ("user", "CREDWEIGHT", 1.0),
    "GROUPWEIGHT": ("group", "CREDWEIGHT", 1.0),
    "ACCOUNTWEIGHT": ("account", "CREDWEIGHT", 1.0),
    "QOSWEIGHT": ("service", "CREDWEIGHT", 1.0),
    "CLASSWEIGHT": ("service", "CREDWEIGHT", 1.0),
    "FSUSERWEIGHT": ("share", "FSWEIGHT", 100.0),
    "FSACCOUNTWEIGHT": ("share", "FSWEIGHT", 100.0),
    "NODEWEIGHT": ("nodes", "RESWEIGHT", 1.0),
}
"""Our factor, its component, and how many of Maui's units are one of ours: minutes, and points of a hundred."""
_CAPS: Final = {name.replace("WEIGHT", "CAP"): (field, unit) for name, (field, _, unit) in _FACTORS.items()}
_SINGLE: Final = frozenset(
    (
        *(*_COMPONENTS, *_FACTORS, *_CAPS, "FSINTERVAL", "FSDEPTH", "FSDECAY", "FSPOLICY"),
        *("BACKFILLPOLICY", "RESERVATIONDEPTH", "RESERVATIONPOLICY"),
        *("NODEALLOCATIONPOLICY", "NODEACCESSPOLICY", "PREEMPTPOLICY"),
    )
)
"""Parameters that are known, each of which has one value."""
_INTERVAL_S: Final = 12 * 3600.0
_DEPTH: Final = 8
"""What Maui takes where nothing is said."""


class Unfit(Exception):
    """Why something cannot be taken over, although it is in order."""


class Mistake(Exception):
    """What was found instead of a value, and what is accepted."""


def policy_from_maui(text: str, file: str) -> tuple[Policy, list[str]]:
    """The policy that a maui.cfg becomes, and what could not be taken over, each as `FILE:LINE: what: why`.

    Raises:
        UserError: it has mistakes, or what it becomes does not fit together; each is named as `FILE:LINE: what`.
    """
    reading = _Reading(file)
    for line, words in _logical_lines(text):
        reading.take(line, words)
    reading.finish()
    mistakes = [said for _, said in sorted(reading.mistakes)] or check_policy(reading.tree, file, reading.lines)
    if mistakes:
        raise refusal(file, mistakes)
    return msgspec.convert(reading.tree, Policy), [said for _, said in sorted(reading.left_out)]


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines without comments, those that end in a backslash with what follows; each with its number."""
    begun, gathered = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].strip()
        begun = begun or number
        gathered += words.removesuffix("\\") + " "
        if not words.endswith("\\"):
            if gathered.strip():
                yield begun, gathered.strip()
            begun, gathered = 0, ""
    if gathered.strip():
        yield begun, gathered.strip()


class _Reading:
    """One maui.cfg; `tree` is the policy as plain values."""

    def __init__(self, file: str) -> None:
        usual = {"preset": "tight", "backfill_order": "same"}
        self.tree: Tree = {**usual, "accounts": {}, "users": {}, "groups": {}, "services": {}}
        self.left_out: list[tuple[int, str]] = []
        self.mistakes: list[tuple[int, str]] = []
        self.lines = Lines("")
        """On which line what is in the tree was said first."""
        self._file = file
        self._components: dict[str, float] = {}
        self._factors: dict[str, float] = {}
        self._caps: dict[str, float] = {}
        self._window: dict[str, float] = {}
        self._preempt_by = ""
        self._members: list[tuple[int, str, str, str]] = []
        self._usual: dict[str, Tree] = {name: {} for name in _KINDS}
        self._named: dict[str, dict[str, Tree]] = {name: {} for name in _KINDS}

    def leave(self, line: int, what: str, why: str) -> None:
        self.left_out.append((line, f"{self._file}:{line}: {what}: {why}"))

    def wrong(self, line: int, what: str, why: object) -> None:
        self.mistakes.append((line, f"{self._file}:{line}: {what}: {why}"))

    def take(self, line: int, words: str) -> None:
        """One line."""
        found = _LINE.fullmatch(words)
        if found is None:
            self.wrong(line, words[:60], "this is no line of a maui.cfg")
            return
        name, of, value = found[1].upper(), found[2], found[3].strip()
        try:
            if name in _KINDS or name == "SYSTEMCFG":
                self._credential(line, name, of or "", value)
            else:
                self.lines.note((name,), line)
                self._parameter(name, of, value.split())
        except Unfit as unfit:
            self.leave(line, words[:60], str(unfit))
        except Mistake as mistake:
            self.wrong(line, words[:60], mistake)

    # -- parameters

    def _parameter(self, name: str, of: str | None, values: list[str]) -> None:
        if not values:
            raise Mistake("it has no value")
        value = values[0].upper()
        if name in _SINGLE and len(values) > 1:
            raise Mistake(f"found {' '.join(values[1:])} after the value, accepted is one")
        if name in _COMPONENTS or name in _FACTORS:
            (self._components if name in _COMPONENTS else self._factors)[name] = _number(values[0])
        elif name in _CAPS:
            field, unit = _CAPS[name]
            self._caps[field] = _number(values[0]) / unit or CAPS.age  # 0 is none
        elif name in ("FSINTERVAL", "FSDEPTH", "FSDECAY"):
            self._window[name] = _seconds(values[0]) if name == "FSINTERVAL" else _number(values[0])
        elif name == "FSPOLICY":
            if not value.startswith(("DEDICATEDPS", "DEDICATEDPES", "UTILIZEDPS")):
                raise Unfit("shares are always by dominant resources; `share = 0` under [weights] leaves them out")
        elif name == "BACKFILLPOLICY":
            self._backfill(value)
        elif name in ("RESERVATIONDEPTH", "RESERVATIONPOLICY"):
            self._reservations(name, of, value)
        elif name in ("NODEALLOCATIONPOLICY", "NODEACCESSPOLICY"):
            is_choice = name == "NODEALLOCATIONPOLICY"
            self.tree["node_choice" if is_choice else "sharing"] = _one_of(
                value, _NODE_CHOICE if is_choice else _SHARING
            )
        elif name == "PREEMPTPOLICY":
            self._preempt_by = _one_of(value, _PREEMPT)
        else:
            raise Unfit("a policy has nothing like it")

    def _backfill(self, value: str) -> None:
        self.tree["backfill"] = "none" if value == "NONE" else "easy"
        if value not in ("NONE", "FIRSTFIT"):
            raise Unfit("taken as FIRSTFIT: there is no other search")

    def _reservations(self, name: str, of: str | None, value: str) -> None:
        if of not in (None, "DEFAULT", "0"):
            raise Unfit("there is one depth for all services")
        if name == "RESERVATIONDEPTH":
            self.tree["depth"] = min(1000, max(0, int(_number(value))))
        elif value == "NEVER":
            self.tree["depth"] = 0
        elif value != "CURRENTHIGHEST":
            raise Unfit("taken as CURRENTHIGHEST: reservations are made anew at each pass")

    # -- credentials

    def _credential(self, line: int, name: str, of: str, words: str) -> None:
        found = _VALUE.findall(words)
        if rest := _VALUE.sub(" ", words).split():
            raise Mistake(f"found {' '.join(rest)}, accepted is NAME=VALUE")
        if not found:
            raise Unfit("it says nothing")
        settled = self.tree if name == "SYSTEMCFG" else self._named_or_usual(line, name, of)
        for key, value in found:
            try:
                self._attribute(line, name, of, settled, key.upper(), value.strip('"'))
            except Unfit as unfit:
                self.leave(line, f"{name}[{of}] {key}={value}", str(unfit))
            except Mistake as mistake:
                self.wrong(line, f"{name}[{of}] {key}={value}", mistake)

    def _named_or_usual(self, line: int, name: str, of: str) -> Tree:
        if of.upper() == "DEFAULT":
            return self._usual[name]
        settled = self._settled(_KINDS[name], of)
        self.lines.note((_KINDS[name], of), line)
        if name == "GROUPCFG" and of not in self._named[name]:
            self.leave(line, f"GROUPCFG[{of}]", f"nobody is in it yet: name its `members` under [groups.{of}]")
        self._named[name][of] = settled
        return settled

    def _settled(self, kind: str, name: str) -> Tree:
        _check_name(name)
        named = self.tree[kind]
        assert isinstance(named, dict)
        settled: Tree = named.setdefault(name, {})
        return settled

    def _attribute(self, line: int, name: str, of: str, settled: Tree, key: str, value: str) -> None:
        limit = key.removeprefix("O") if name == "QOSCFG" else key
        if limit in _LIMITS:
            self._limit(name, settled, limit, value)
        elif name == "SYSTEMCFG":
            raise Unfit("a policy has nothing like it")
        elif key == "PRIORITY":
            settled["priority"] = _number(value, least=-NUMBER_MOST)
        elif key == "FSTARGET":
            self._target(name, settled, value)
        elif key == "ADEF" and name == "USERCFG":
            self._settled("accounts", value)
            settled["account"] = value
        elif key in ("QLIST", "QDEF") and name in ("USERCFG", "GROUPCFG", "ACCOUNTCFG"):
            self._members.append((line, _KINDS[name], of, value))
        elif key in ("FLAGS", "QFLAGS") and name in ("QOSCFG", "CLASSCFG"):
            self._flags(settled, value)
        elif key == "QTTARGET" and name in ("QOSCFG", "CLASSCFG"):
            settled["target_wait_us"] = round(_seconds(value) * 1e6)
        else:
            raise Unfit("a policy has nothing like it")

    def _limit(self, name: str, settled: Tree, key: str, value: str) -> None:
        field, unit = _LIMITS[key]
        bounds = [round(_number(each) * unit) for each in value.split(",")]
        if len(bounds) > 2 or bounds[0] > bounds[-1]:
            raise Mistake("accepted is a limit, or soft,hard with the soft one no more than the hard one")
        limits = settled.setdefault("limits", {})
        assert isinstance(limits, dict)
        limits[field] = [bounds[0], bounds[-1]]

    def _target(self, name: str, settled: Tree, value: str) -> None:
        found = _TARGET.fullmatch(value)
        if name not in ("USERCFG", "ACCOUNTCFG"):
            raise Unfit("only accounts and users have shares")
        if found is None:
            raise Mistake("accepted is a number, and perhaps one of + - ^ % after it")
        if not float(found[1]):
            raise Unfit("a share is a number above 0")
        settled["weight"] = float(found[1])
        if found[2]:
            raise Unfit(f"taken as {found[1]}: a share is aimed at from both sides, and is no cap")

    def _flags(self, settled: Tree, value: str) -> None:
        unknown = []
        for flag in re.split(r"[,:|]", value.upper()):
            if flag in _FLAGS:
                field, is_on = _FLAGS[flag]
                settled[field] = is_on
            elif flag:
                unknown.append(flag)
        if unknown:
            raise Unfit(f"a service has no flag {', '.join(unknown)}")

    # -- what is known at the end only

    def finish(self) -> None:
        """Make what several lines say together."""
        if self._window:
            self.tree["half_life_us"] = round(self._half_life_s() * 1e6)
        self.tree["weights"] = self._weights()
        self.tree["caps"] = {**msgspec.structs.asdict(CAPS), **self._caps}
        self._settle_usual()
        self._let_in()
        services = self.tree["services"]
        assert isinstance(services, dict)
        if self._preempt_by:
            for service in services.values():
                service["preempt_by"] = self._preempt_by

    def _settle_usual(self) -> None:
        """What Maui's DEFAULT says counts for whoever does not say it himself; our `*` is only for who is not named."""
        for name, usual in self._usual.items():
            for settled in self._named[name].values():
                settled.update(_beside(usual, settled))
            others = self.tree[_KINDS[name]]
            assert isinstance(others, dict)
            if usual and name != "GROUPCFG":  # whose members are named, so that there are no others
                others[EVERYONE] = _beside(usual, others.get(EVERYONE, {}))

    def _half_life_s(self) -> float:
        """Of windows that all count the same, half of their length; of decaying ones, when the weight is a half."""
        interval_s, decay = self._window.get("FSINTERVAL", _INTERVAL_S), self._window.get("FSDECAY", 1.0)
        whole_s = interval_s * self._window.get("FSDEPTH", _DEPTH)
        half_s = interval_s * math.log(0.5) / math.log(decay) if 0 < decay < 1 else math.inf
        return max(60.0, min(half_s, whole_s / 2, MAX_SECONDS))

    def _weights(self) -> Tree:
        """Maui has weight 1 on queue time where nothing is said, and 0 on all else."""
        factors: Tree = dict.fromkeys(WEIGHTS.__struct_fields__, 0.0)
        components = {"RESWEIGHT": self._components.get("RESOURCEWEIGHT", 1.0), **self._components}
        for name, weight in {"QUEUETIMEWEIGHT": 1.0, **self._factors}.items():
            field, component, unit = _FACTORS[name]
            before = factors[field]
            assert isinstance(before, float)
            made = weight * components.get(component, 1.0) * unit
            if made > NUMBER_MOST:
                why = f"with {component} it becomes {made:g}, accepted is at most {NUMBER_MOST:g}"
                self.wrong(self.lines.of((name,)), name, why)
            factors[field] = max(before, made)
        return factors

    def _let_in(self) -> None:
        """Who may use a service; one that is in the list of DEFAULT is open to everybody."""
        opened: list[Tree] = []
        for line, kind, who, value in self._members:
            for service in re.split(r"[,:]", value.removesuffix("&")):
                try:
                    settled = self._settled("services", service)
                except Unfit as unfit:
                    self.leave(line, f"QLIST={value}", str(unfit))
                    continue
                allowed = settled.setdefault(kind, [])
                assert isinstance(allowed, list)
                if who.upper() == "DEFAULT":
                    opened.append(settled)
                elif who not in allowed:
                    allowed.append(who)
        for settled in opened:
            for kind in ("users", "groups", "accounts"):
                settled.pop(kind, None)


def _beside(usual: Tree, own: Tree) -> Tree:
    """What is settled by `own`, and by `usual` where that says nothing; limits one by one."""
    found = {**usual, **own}
    for name in usual.keys() & own.keys() & {"limits"}:
        limits, own_limits = usual[name], own[name]
        assert isinstance(limits, dict) and isinstance(own_limits, dict)
        found[name] = {**limits, **own_limits}
    return found


def _number(text: str, least: float = 0.0) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise Mistake("accepted is a number")
    if not least <= value <= NUMBER_MOST:
        raise Unfit(f"a policy takes numbers from {least:g} to {NUMBER_MOST:g} there")
    return value


def _seconds(text: str) -> float:
    """`[[[D:]H:]M:]S`."""
    parts = text.split(":")
    if not 1 <= len(parts) <= 4 or not all(part.isascii() and part.isdigit() and len(part) < 10 for part in parts):
        raise Mistake("accepted is a time, [[[DD:]HH:]MM:]SS")
    units = (86_400, 3600, 60, 1)[-len(parts) :]
    found = float(sum(int(part) * unit for part, unit in zip(parts, units, strict=True)))
    if found > MAX_SECONDS:
        raise Unfit("a policy takes times up to ten years")
    return found


def _one_of(value: str, known: dict[str, str]) -> str:
    if value not in known:
        raise Unfit("there are " + ", ".join(known))
    return known[value]


def _check_name(name: str) -> None:
    try:
        user_name(name)
    except UserError:
        raise Unfit("this is no name") from None

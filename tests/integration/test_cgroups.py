"""Attempts in control groups, with a real starter and the kernel's own groups, of every kind that is here."""

from __future__ import annotations

import dataclasses
import json
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lanai.agent import cgroup_mounts
from lanai.agent import starter_link as sl
from lanai.agent.cgroups import Cgroups, UserGroups, Wishes
from lanai.agent.starter_cgroups import ENTER, Leaf
from services.cgroups import ESCAPES, assert_kept_in, needs_cgroups
from services.starter_bench import Bench, is_alive, wait_for
from services.users import made_users, open_directory

MIB = 1 << 20
PYTHON = [sys.executable, "-I", "-S", "-c"]
GROW = "import sys\nkept = []\nfor _ in range(int(sys.argv[1])): kept.append(bytearray(b'x') * (1 << 20))"
LOSE_A_CHILD = """
import os, sys, time
child = os.fork()
if not child:
    kept = []
    while True:
        kept.append(bytearray(b"x") * (1 << 20))
os.waitpid(child, 0)
if sys.argv[1] == "waits":
    time.sleep(600)
"""
RUNAWAY = """
import os, signal, sys, time
for _ in range(2):
    if os.fork():
        os._exit(0)
    os.setsid()
signal.signal(signal.SIGHUP, signal.SIG_IGN)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.closerange(0, 100)
os.chdir("/")
with open(sys.argv[1] + ".new", "w") as file:
    file.write(f"{os.getpid()}\\n")
os.rename(sys.argv[1] + ".new", sys.argv[1])
os.execve("/bin/sleep", ["sleep", "600"], {})
"""


class Kind:
    """Which hierarchies of this computer are used."""

    def __init__(self, name: str) -> None:
        self.name = name
        everything = cgroup_mounts.find()
        self.mounted = [one for one in everything if name == "all" or name == f"v{one.version}"]
        if name == "v2":
            self.mounted = [dataclasses.replace(one, controllers=()) for one in self.mounted]

    @property
    def memory_version(self) -> int:
        return next(one.version for one in self.mounted if "memory" in one.controllers)


class Grouped(Bench):
    """A starter in control groups, as an agent would have put it there, with as many leaves as it is given."""

    def __init__(self, directory: Path, kind: Kind, *, leaves: int = 2, user: str = "", **settings: Any) -> None:
        wishes = {name: settings.pop(name) for name in ("cpu", "user_processes") if name in settings}
        super().__init__(directory, **settings)
        self.cgroups = Cgroups(directory, Wishes(cpu_milli=2000, for_users=bool(user), **wishes), kind.mounted)
        found = self.cgroups.of(user or "somebody")
        assert found is not None
        self.groups: UserGroups = found
        self.groups.open()
        self.groups.admit(self.pid)
        self.pass_main()
        self._given = 0
        for _ in range(leaves):
            self.give_leaf()

    def pass_main(self) -> None:
        doors = self.groups.doors()
        self.pass_on(self.link.main(len(doors)), doors)

    def give_leaf(self) -> int:
        leaf = self.groups.make_leaf()
        self.pass_on(self.link.leaf(leaf.number, leaf.files), leaf.descriptors)
        return leaf.number

    def pass_on(self, data: bytes, descriptors: list[int]) -> None:
        self.connection.send(data, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def prepare(self, width: int = 2, **settings: Any) -> None:
        super().prepare(width, **{"leaf": {"cpu": None}, **settings})

    def asked(self) -> tuple[int, list[int]]:
        reports = [one for one in self.others if isinstance(one, sl.Leaves)]
        return sum(one.wanted for one in reports), [number for one in reports for number in one.returned]

    def ends_with_leaves(self, count: int) -> list[sl.Ended]:
        """Ends, with more leaves for it to go on with: before Linux 6.12, one that held much is not used again."""
        self.until(lambda: self._gave_what_was_asked() and len(self.ended) >= count)
        return self.ends(count)

    def _gave_what_was_asked(self) -> bool:
        while self._given < self.asked()[0]:
            self._given += 1
            self.give_leaf()
        return True

    def close(self) -> None:
        super().close()
        self.groups.kill()
        self.cgroups.close()
        assert not self.cgroups.left(), "groups are left"


@pytest.fixture(params=["all", "v1"])
def kind(request: pytest.FixtureRequest) -> Kind:
    needs_cgroups()
    made = Kind(request.param)
    if not made.mounted:
        pytest.skip(f"{request.param}: no such cgroups here")
    return made


@pytest.fixture
def grouped(tmp_path: Path, kind: Kind) -> Iterator[Callable[..., Grouped]]:
    made: list[Grouped] = []

    def make(**settings: Any) -> Grouped:
        made.append(Grouped(tmp_path, kind, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_over_its_memory_the_kernel_ends_it_and_that_is_its_outcome(
    grouped: Callable[..., Grouped], kind: Kind
) -> None:
    """At once, not when somebody looks; and what comes next in that leaf is judged by itself."""
    bench = grouped(leaves=1)
    end = bench.one([*PYTHON, GROW, "400"], memory_bytes=64 * MIB, width=1)
    assert (end.outcome, end.exit_code, end.signal, end.escaped) == ("memory", None, signal.SIGKILL, 0)
    assert end.memory_peak_bytes is not None and 60 * MIB < end.memory_peak_bytes <= 64 * MIB
    which = "one of its processes" if kind.memory_version == 1 else "its processes"
    used = f"memory limit of {64 * MIB} bytes: {end.memory_peak_bytes} in use at most"
    assert end.reason == f"{used}, the kernel ended {which}"
    bench.run([*PYTHON, GROW, "20"], [*PYTHON, GROW, "40"], first=2)
    _, small, large = bench.ends_with_leaves(3)
    assert (small.outcome, large.outcome) == ("ok", "ok")
    assert 20 * MIB < (small.memory_peak_bytes or 0) < 40 * MIB < (large.memory_peak_bytes or 0) < 60 * MIB


@pytest.mark.parametrize("then", ["waits", "ends"])
def test_a_child_ended_for_its_memory_counts_whatever_the_command_does(
    grouped: Callable[..., Grouped], then: str
) -> None:
    """A pool that waits for a worker that is no more would wait for ever; a script would say that all is well."""
    end = grouped().one([*PYTHON, LOSE_A_CHILD, then], memory_bytes=64 * MIB)
    assert end.outcome == "memory" and end.reason is not None
    assert end.reason.startswith(f"memory limit of {64 * MIB} bytes: ")
    if then == "ends" and end.exit_code is not None:
        assert end.reason.endswith("the command itself ended with exit code 0")
    else:
        assert end.signal == signal.SIGKILL


def test_a_leaf_too_small_for_any_command_costs_the_starter_nothing(grouped: Callable[..., Grouped]) -> None:
    bench = grouped()
    end = bench.one(["sleep", "600"], memory_bytes=4096)
    assert end.outcome == "memory" and str(end.reason).startswith("memory limit of 4096 bytes")
    bench.prepare(memory_bytes=64 * MIB)
    bench.run(["true"], first=2)
    assert bench.ends(2)[1].outcome == "ok"


def test_cpu_time_is_that_of_all_its_processes(grouped: Callable[..., Grouped], kind: Kind) -> None:
    """Also of those that nobody has waited for, where the kernel counts by group."""
    burn = "import os\nif not os.fork():\n    while sum(os.times()[:2]) < 0.3: pass\n    os._exit(0)\nos.wait()"
    end = grouped().one([*PYTHON, burn], memory_bytes=64 * MIB)
    assert end.outcome == "ok"
    assert 300_000 <= end.user_us + end.system_us < 5_000_000


def test_whatever_way_it_runs_off_it_is_ended_with_its_attempt(grouped: Callable[..., Grouped]) -> None:
    """Forked twice, two sessions away, without environment, files or a parent, deaf to signals."""
    bench = grouped()
    runaway, here = bench.work / "runaway", bench.work / "here"
    bench.prepare(memory_bytes=64 * MIB, grace_us=50_000)
    script = f"{sys.executable} -I -S -c '{RUNAWAY}' {runaway}; : > {here}; exec sleep 600"
    bench.run(script)
    pid = bench.pid_in("runaway")
    wait_for(here.exists)
    bench.say(bench.link.kill(1, 1))
    (end,) = bench.ends()
    assert (end.outcome, end.escaped) == ("cancelled", 0)
    assert not is_alive(pid)


def test_what_outlives_its_attempt_keeps_the_leaf_and_its_limit(grouped: Callable[..., Grouped]) -> None:
    """Nothing else begins in there; one more leaf is asked for, and when it is gone the first is used again."""
    bench = grouped(leaves=1)
    bench.prepare(width=1, memory_bytes=64 * MIB)
    runs_off = f"{sys.executable} -I -S -c '{RUNAWAY}' {bench.work}/runaway"
    bench.run(f"{runs_off}; while [ ! -e runaway ]; do sleep 0.01; done")
    (end,) = bench.ends()
    assert (end.outcome, end.escaped) == ("ok", 1)
    pid = bench.pid_in("runaway")
    (first,) = bench.reconnect().leaves
    bench.run(["true"], first=2)
    bench.until(lambda: bench.asked() == (1, []))
    assert is_alive(pid)
    second = bench.give_leaf()
    assert bench.ends(2)[1].outcome == "ok"
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(pid))
    bench.run(["sleep", "600"], [*PYTHON, "import time; time.sleep(600)"], first=3)
    bench.say(bench.link.lane(1, 2))
    bench.until(lambda: bench.begun() == 2)
    assert sorted(bench.reconnect().leaves) == [first, second]


def test_a_leaf_full_of_files_is_given_back(grouped: Callable[..., Grouped]) -> None:
    """What the kernel keeps of files that one attempt has read would count as the next one's memory."""
    bench = grouped(leaves=1)
    bench.prepare(width=1, memory_bytes=512 * MIB)
    bench.run(["dd", "if=/dev/zero", "of=file", "bs=1M", "count=48"], ["true"])
    bench.until(lambda: bench.asked() == (1, [1]))
    bench.groups.drop_leaves([1])
    assert bench.give_leaf() == 2
    first, second = bench.ends(2)
    assert first.outcome == second.outcome == "ok"
    assert (first.memory_peak_bytes or 0) > 32 * MIB > (second.memory_peak_bytes or 0)


def test_leaves_that_somebody_has_removed_are_replaced(grouped: Callable[..., Grouped]) -> None:
    """An administrator who tidies up, say: no attempt fails for it, and the starter lives on."""
    bench = grouped(leaves=2)
    bench.groups.keep_leaves([])
    bench.prepare(width=1, memory_bytes=64 * MIB)
    bench.run(["true"], ["true"])
    first, second = bench.ends_with_leaves(2)
    assert (first.outcome, second.outcome) == ("ok", "ok")
    assert sorted(bench.asked()[1]) == [1, 2] and not {1, 2}.intersection(bench.reconnect().leaves)


@pytest.mark.parametrize("kind", ["v2"], indirect=True)
def test_without_a_memory_controller_a_leaf_serves_to_end_everything(grouped: Callable[..., Grouped]) -> None:
    """As in a login session of version 2. Memory is looked at as where there are no groups at all."""
    bench = grouped()
    bench.prepare(memory_bytes=64 * MIB, grace_us=50_000)
    runs_off = f"{sys.executable} -I -S -c '{RUNAWAY}' {bench.work}/runaway"
    (bench.work / "grow.py").write_text(GROW + "\nimport time; time.sleep(600)")
    grows = f"{sys.executable} -I -S grow.py 100"
    bench.run(f"{runs_off}; while [ ! -e runaway ]; do sleep 0.01; done; exec {grows}")
    (end,) = bench.ends()
    assert (end.outcome, end.escaped) == ("memory", 0) and str(end.reason).endswith("in use")
    assert not is_alive(bench.pid_in("runaway"))


def test_who_asks_for_more_of_a_cpu_gets_more_where_it_is_short(grouped: Callable[..., Grouped]) -> None:
    """Both on one cpu for a second, four shares to one; whatever others run there takes from both alike."""
    bench = grouped(cpu="weight")
    burn = (
        "import os, sys, time\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "open(sys.argv[1], 'w').close()\n"
        "while not os.path.exists(sys.argv[2]): pass\n"
        "until = time.monotonic() + 1\n"
        "before = time.process_time()\n"
        "while time.monotonic() < until: pass\n"
        "print(time.process_time() - before)"
    )
    for number, cpu_milli, names in ((1, 200, ("a", "b")), (2, 800, ("b", "a"))):
        env = {"PATH": "/usr/bin:/bin"}
        settings = {"batch": 7, "cwd": str(bench.work), "env": env, "leaf": {"cpu": "weight"}, "cpu_milli": cpu_milli}
        bench.say(bench.link.spec(number, **settings), bench.link.lane(number, 1))
        bench.say(bench.link.run(number, number, 1, [[number, 1, [*PYTHON, burn, *names]]]))
    few, many = (float(bench.output(end)) for end in bench.ends(2))
    assert many > 2 * few > 0


def test_where_there_are_no_leaves_attempts_begin_without(grouped: Callable[..., Grouped]) -> None:
    bench = grouped(leaves=0)
    bench.prepare(memory_bytes=64 * MIB)
    bench.run([*PYTHON, GROW + "\nimport time; time.sleep(600)", "100"])
    bench.until(lambda: bench.asked()[0] == 1)
    bench.say(bench.link.no_leaf("the kernel has none left"))
    (end,) = bench.ends()
    assert end.outcome == "memory" and str(end.reason).endswith("in use")


def test_when_its_starter_is_dead_all_of_a_users_is_ended(grouped: Callable[..., Grouped]) -> None:
    """With a limit or without: what has no mark left is found by its group."""
    bench = grouped()
    bench.prepare(memory_bytes=64 * MIB)
    bench.say(bench.link.spec(2, batch=7, cwd=str(bench.work), env={"PATH": "/usr/bin:/bin"}), bench.link.lane(2, 2))
    bench.run(f"{sys.executable} -I -S -c '{RUNAWAY}' {bench.work}/limited; exec sleep 600")
    command = f"{sys.executable} -I -S -c '{RUNAWAY}' {bench.work}/free; exec sleep 600"
    bench.say(bench.link.run(2, 2, 1, [[2, 1, command]]))
    pids = [bench.pid_in("limited"), bench.pid_in("free")]
    os.kill(bench.pid, signal.SIGKILL)
    os.waitpid(bench.pid, 0)
    bench.is_reaped = True
    assert all(map(is_alive, pids))
    bench.groups.kill()
    assert not any(map(is_alive, pids))


def test_a_fork_bomb_takes_only_its_user_down(grouped: Callable[..., Grouped]) -> None:
    """It stops by itself after 200, should nothing else stop it."""
    bench = grouped(user_processes=40)
    bomb = """
import os, time
made = 0
try:
    while made < 200:
        if not os.fork():
            time.sleep(600)
        made += 1
except OSError as error:
    print(made, error.strerror)
"""
    bench.prepare(memory_bytes=256 * MIB)
    bench.run([*PYTHON, bomb])
    (end,) = bench.ends()
    made, _, why = bench.output(end).decode().partition(" ")
    assert 20 < int(made) < 40 and why.strip() == "Resource temporarily unavailable"
    assert end.escaped == int(made)
    subprocess.run(["true"], check=True)
    bench.run(["true"] * 1, first=2)
    assert bench.ends(2)[1].outcome in ("ok", "node")


def test_half_a_cpu_is_no_more_than_that(grouped: Callable[..., Grouped]) -> None:
    """By cpu time against wall time: 0.3 s of it take 0.6 s and more."""
    bench = grouped(cpu="quota")
    burn = "import os\nwhile sum(os.times()[:2]) < 0.4: pass"
    bench.prepare(cpu_milli=500, leaf={"cpu": "quota"})
    bench.run([*PYTHON, burn])
    (end,) = bench.ends()
    assert end.outcome == "ok" and end.wall_us >= 600_000
    bench.prepare(cpu_milli=1000, leaf={"cpu": "weight"})
    bench.run(["sh", "-c", "cat /proc/self/cgroup"], first=2)
    shares = _cpu_shares(bench.cgroups, bench.output(bench.ends(2)[1]).decode())
    assert shares in ((1024, "-1"), (100, "max 100000"))


def test_a_leaf_can_be_frozen_thawed_and_killed(tmp_path: Path, kind: Kind) -> None:
    """Frozen, a process that writes all the time writes nothing; killed, it ends even so."""
    cgroups = Cgroups(tmp_path, Wishes(), kind.mounted)
    groups = cgroups.of("somebody")
    assert groups is not None
    groups.open()
    made = groups.make_leaf()
    leaf = Leaf(*made)
    writer = subprocess.Popen([*PYTHON, "import os\nwhile True: os.write(1, b'x')"], stdout=subprocess.PIPE, bufsize=0)
    assert writer.stdout is not None
    try:
        for door in (fd for name, fd in zip(made.files, made.descriptors, strict=True) if name == "enter"):
            os.write(door, b"%d" % writer.pid)
        assert [one.pid for one in leaf.processes()] == [writer.pid] and not leaf.is_empty()
        writer.stdout.read(1)
        assert leaf.freeze()
        wait_for(lambda: _is_frozen(cgroups, made.number))
        os.set_blocking(writer.stdout.fileno(), False)
        while writer.stdout.read(1 << 16):
            pass
        assert writer.stdout.read(1) is None
        assert leaf.thaw()
        os.set_blocking(writer.stdout.fileno(), True)
        assert writer.stdout.read(1) == b"x"
        assert leaf.freeze()
        leaf.kill()
        leaf.thaw()
        assert writer.wait(20) == -signal.SIGKILL
        wait_for(leaf.is_empty)
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
        leaf.close()
        groups.kill()
        cgroups.close()
    assert not cgroups.left()


def test_a_users_job_can_neither_leave_its_group_nor_change_it(kind: Kind) -> None:
    """Not by the kernel's files, which are root's, nor by the descriptors that its starter has."""
    with made_users("job") as (user,), open_directory() as directory:
        (directory / "state").mkdir()
        work = directory / "state"
        place = sl.Place(directory / "users" / user.pw_name, directory / "door")
        (directory / "users").mkdir(mode=0o711)
        bench = Grouped(work, kind, place=place, account=sl.Account(user.pw_name), user=user.pw_name, cpu="quota")
        try:
            work.chmod(0o711)
            os.chown(bench.work, user.pw_uid, user.pw_gid)
            bench.prepare(memory_bytes=64 * MIB, cpu_milli=500, leaf={"cpu": "quota"})
            bench.run(["/usr/bin/python3", "-I", "-S", "-c", ESCAPES])
            (end,) = bench.ends()
            assert end.outcome == "ok", end
            assert end.memory_peak_bytes is not None and end.memory_peak_bytes <= 64 * MIB
            assert_kept_in(bench.output(end).decode(), user.pw_uid)
        finally:
            bench.close()


def test_who_gets_hold_of_a_starter_can_move_nobody_elses_processes(kind: Kind, tmp_path: Path) -> None:
    """Its descriptors have its user's rights: with root's, it could take any process into a leaf, and end it there."""
    with made_users("ann", "bob") as (ann, bob):
        cgroups = Cgroups(tmp_path, Wishes(for_users=True), kind.mounted)
        groups = cgroups.of(ann.pw_name)
        assert groups is not None
        groups.open()
        leaf = groups.make_leaf()
        into = [fd for fd, file in zip(leaf.descriptors, leaf.files, strict=True) if file == ENTER]
        back = groups.doors()
        others = [subprocess.Popen(["sleep", "100"], user=user.pw_uid) for user in (pwd.getpwuid(0), bob)]
        own = subprocess.Popen(["sleep", "100"], user=ann.pw_uid)
        try:
            groups.admit(own.pid)
            assert into and len(into) == len(back)
            said = _as_starter(groups, ann.pw_uid, into, [own.pid, *(one.pid for one in others)])
            assert said == [["moved", "Permission denied", "Permission denied"] for _ in into]
            said = _as_starter(groups, ann.pw_uid, [*into, *back], [0])
            assert said == [["moved"] for _ in (*into, *back)]
            for group in cgroups.left():
                for file in ("cgroup.procs", "tasks"):
                    if (group / file).exists():
                        assert _moves_itself(groups, ann.pw_uid, group / file) is False, group / file
        finally:
            for one in (*others, own):
                one.kill()
                one.wait()
            for descriptor in (*leaf.descriptors, *back):
                os.close(descriptor)
            groups.kill()
            cgroups.close()
        assert not cgroups.left()


def _as_starter(groups: UserGroups, uid: int, doors: list[int], pids: list[int]) -> list[list[str]]:
    """What a process of that user's, admitted as a starter, is answered when it writes these numbers to each door."""

    def tried(door: int, pid: int) -> str:
        try:
            os.write(door, str(pid).encode())
        except OSError as error:
            return error.strerror
        return "moved"

    return json.loads(
        _of_child(groups, uid, lambda: json.dumps([[tried(door, pid) for pid in pids] for door in doors]))
    )


def _moves_itself(groups: UserGroups, uid: int, file: Path) -> bool:
    def tried() -> str:
        try:
            file.write_text("0")
        except OSError:
            return ""
        return "moved"

    return bool(_of_child(groups, uid, tried))


def _of_child(groups: UserGroups, uid: int, act: Callable[[], str]) -> str:
    """What `act` returns in a process that was admitted as a starter and has become that user."""
    ready, go = os.pipe()
    answer, say = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.read(ready, 1)
            os.setgroups([])
            os.setresuid(uid, uid, uid)
            os.write(say, act().encode())
        finally:
            os._exit(0)
    os.close(say)
    groups.admit(pid)
    os.write(go, b"x")
    with open(answer, "rb") as said:
        told = said.read().decode()
    os.waitpid(pid, 0)
    for descriptor in (ready, go):
        os.close(descriptor)
    return told


def _is_frozen(cgroups: Cgroups, number: int) -> bool:
    for group in cgroups.left():
        if group.name == str(number):
            for name, text in (("cgroup.events", "frozen 1"), ("freezer.state", "FROZEN")):
                if (group / name).exists():
                    return text in (group / name).read_text()
    return False


def _cpu_shares(cgroups: Cgroups, said: str) -> tuple[int, str]:
    """Share and quota of whatever is in these groups, by either version's words."""
    paths = [line.split(":", 2)[2] for line in said.splitlines()]
    leaf = next(one for one in cgroups.left() if any(map(os.fspath(one).endswith, paths)) and _has_share(one))
    for share, quota in (("cpu.shares", "cpu.cfs_quota_us"), ("cpu.weight", "cpu.max")):
        if (leaf / share).exists():
            return int((leaf / share).read_text()), (leaf / quota).read_text().strip()
    raise AssertionError(f"{leaf} has no share")


def _has_share(group: Path) -> bool:
    return (group / "cpu.shares").exists() or (group / "cpu.weight").exists()

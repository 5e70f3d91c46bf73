"""The files by which hub and agent are services of a machine, as texts; and whether one that lies there is still ours.

Each begins with a mark, the SHA-256 of what follows. A file whose mark fits was written by us and changed by nobody, so
a later version may write over it; any other is somebody's work.

Why a line is in a unit, or is not, stands in the unit itself, for whoever looks there with `systemctl cat`.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple

UNITS: Final = "/etc/systemd/system"
PACKAGED_UNITS: Final = "/lib/systemd/system"
SYSUSERS: Final = "/etc/sysusers.d"
PACKAGED_SYSUSERS: Final = "/usr/lib/sysusers.d"
CONFIGURATION: Final = "/etc/lanai/config.toml"

_MARK: Final = "# Written by `lanai install-service`; what follows is unchanged where its SHA-256 is "
_ENVIRONMENT: Final = "Environment=LANAI_HOME=/var/lib/lanai XDG_CONFIG_DIRS=/etc:/etc/xdg"


class ServiceFile(NamedTuple):
    """A file to be installed.

    Attributes:
        path: absolute, as the system will see it.
        text: what it holds.
        is_kept: it is the administrator's from the moment it is there: never written over, never removed.
    """

    path: str
    text: str
    is_kept: bool = False


def hub_files(python: str, *, is_packaged: bool) -> list[ServiceFile]:
    """What makes the hub a service: its unit, its user, and the configuration that opens it to this machine's users.

    Args:
        python: the interpreter that has Lanai.
        is_packaged: for a distribution's package, whose places are others than an administrator's.
    """
    sysusers = PACKAGED_SYSUSERS if is_packaged else SYSUSERS
    return [
        ServiceFile(f"{sysusers}/lanai.conf", marked(_USER)),
        ServiceFile(CONFIGURATION, _CONFIGURATION, is_kept=True),
        ServiceFile(f"{_units(is_packaged)}/lanai-hub.service", marked(_filled(_HUB, python))),
    ]


def agent_files(python: str, *, is_packaged: bool) -> list[ServiceFile]:
    """What makes an agent of root's a service: the unit of its jobs, and its own; arguments as of `hub_files`."""
    units = _units(is_packaged)
    return [
        ServiceFile(f"{units}/lanai-jobs.service", marked(_filled(_JOBS, python))),
        ServiceFile(f"{units}/lanai-agent.service", marked(_filled(_AGENT, python))),
    ]


def marked(text: str) -> str:
    """The text behind its mark."""
    return f"{_MARK}{hashlib.sha256(text.encode()).hexdigest()}\n{text}"


def is_ours(text: str) -> bool:
    """Whether a file holds what some version of us has written, unchanged."""
    mark, _, rest = text.partition("\n")
    return mark.startswith(_MARK) and marked(rest) == text


def _units(is_packaged: bool) -> str:
    return PACKAGED_UNITS if is_packaged else UNITS


def _filled(unit: str, python: str) -> str:
    quoted = python.replace("%", "%%")
    if any(each in quoted for each in " \"'\\"):
        quoted = '"' + quoted.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return unit.replace("@PYTHON@", quoted).replace("@ENVIRONMENT@", _ENVIRONMENT)


_USER: Final = """\
u lanai - "Lanai hub" /var/lib/lanai /usr/sbin/nologin
"""

_CONFIGURATION: Final = """\
# Lanai on this machine: read by the hub and the agent that are services, at their start.

[access]
# Everybody who has an account here may submit, as himself. "owner": nobody but root and the user lanai.
local = "everyone"
socket = "/run/lanai/api.sock"
# Where agents of other machines connect. Without it a free port, which stays the same.
# listen = "0.0.0.0:7001"
# operators = []
# admins = []

# [agent]
# cpus = 8
# memory = "32G"
"""

_HUB: Final = """\
[Unit]
Description=Lanai hub
Wants=network-online.target
After=network-online.target nss-user-lookup.target
# It is tried again for as long as it takes.
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart=@PYTHON@ -P -m lanai hub start --foreground
User=lanai
Group=lanai
@ENVIRONMENT@
StateDirectory=lanai
StateDirectoryMode=0700
# The socket of this machine's users. It stays while the hub does not run, and tells them that there is one.
RuntimeDirectory=lanai
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes
UMask=0077

# A large queue takes a while to be read.
TimeoutStartSec=10min
TimeoutStopSec=30
# Its loop has to turn. A hub that hangs is ended with SIGABRT, which leaves the stack in the journal.
WatchdogSec=60
TimeoutAbortSec=10
Restart=on-failure
RestartSec=2
# 2: what it was asked for cannot be; the journal says what is to be changed.
RestartPreventExitStatus=2
# No command runs here: nothing that must outlive the hub. Its API process is told by the hub; where that was killed,
# this ends it, before its port is wanted again.
KillMode=mixed
# Where memory runs out, better a job than the hub; and of the hub better a copy that answers a question, of which
# nothing else is to end.
OOMScoreAdjust=-500
OOMPolicy=continue

# The hub reads and writes its state, and speaks to sockets. It needs nothing else of the machine.
NoNewPrivileges=yes
CapabilityBoundingSet=
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectProc=invisible
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallFilter=setrlimit prlimit64
SystemCallErrorNumber=EPERM
# Not PrivateUsers=yes: everybody who connects would be `nobody`. Not PrivateNetwork=yes: agents come by the network.
# Not ProcSubset=pid: it asks the kernel when the machine was booted.

[Install]
WantedBy=multi-user.target
"""

_JOBS: Final = """\
[Unit]
Description=Control groups of Lanai's jobs
# Its process does nothing; its control group is what the agent divides. To end it is to have no limits on jobs, and
# with jobs in there it cannot be started again before they have ended: `systemctl stop lanai-jobs` is refused.
RefuseManualStop=yes
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart=@PYTHON@ -P -m lanai.agent.jobs_unit
Delegate=yes
KillMode=process
# The kernel ends a process that takes more memory than its job has. That is one job's end, and not all others'.
OOMPolicy=continue
TasksMax=infinity
Restart=on-failure
RestartSec=10

# Nothing is shut in here: processes of jobs come from the agent, and only their control groups are this unit's.
"""

_AGENT: Final = """\
[Unit]
Description=Lanai agent
Wants=network-online.target lanai-jobs.service
After=network-online.target nss-user-lookup.target remote-fs.target lanai-jobs.service lanai-hub.service
# Without a hub's word how to join it there is nothing to do.
ConditionPathExists=|/var/lib/lanai/join
ConditionPathExists=|/etc/lanai/join
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart=@PYTHON@ -P -m lanai agent start --foreground --as-users --min-uid 1000 --no-allow-root \\
    --cgroup-base system.slice/lanai-jobs.service
@ENVIRONMENT@
# Users get through it to what is theirs; the rest in it is closed.
StateDirectory=lanai-agent
StateDirectoryMode=0711

# Its loop has to turn. An agent that hangs is ended with SIGABRT, which leaves the stack in the journal.
WatchdogSec=120
TimeoutAbortSec=10
TimeoutStopSec=30
Restart=on-failure
RestartSec=2
# 2: what it was asked for cannot be; the journal says what is to be changed.
RestartPreventExitStatus=2

# The agent alone ends with its unit. What it has started goes on, and the next agent takes it over.
KillMode=process
# No Delegate=: groups with controllers in it would keep systemd before 254 from starting this unit again (219/CGROUP).
# They lie in lanai-jobs.service.
# The kernel ends a process that takes too much memory. That is one job's end, and not the agent's.
OOMPolicy=continue
TasksMax=infinity

# Jobs inherit what is set here, for good, and their users expect the machine as they know it. So there is
# no ProtectSystem=, ProtectHome=, PrivateTmp=, PrivateDevices=, Protect...=: jobs would have another view of the files;
# no NoNewPrivileges=, SystemCallFilter=, RestrictSUIDSGID=, MemoryDenyWriteExecute=, Restrict...=: sudo, ping,
#   containers, debuggers and what compiles to memory would fail in jobs;
# no CapabilityBoundingSet=: the agent becomes every user, enters his files as he, and ends his processes;
# no OOMScoreAdjust=: jobs would be spared before everything else.
# Limits of jobs are set in drop-ins: systemctl edit lanai-agent, e.g. LimitCORE=0, LimitNOFILE=65536.

[Install]
WantedBy=multi-user.target
"""

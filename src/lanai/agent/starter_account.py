"""How a starter that root has started becomes the user whose jobs it runs, and what a job learns of that user.

Standard library only, part of the starter. It runs before the starter listens to anybody, and everything after it runs
as the user. Looking up names may take long where a directory service answers: here only that user waits for it.
"""

import ctypes
import errno
import grp
import os
import pwd
import stat
from typing import NamedTuple

LOG_NAME = "starter.log"
_KEYCTL_JOIN_SESSION_KEYRING = 1
# The C library has no call for it; the number differs from one architecture to the next.
_KEYCTL = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "ppc64le": 271, "s390x": 280}


class CannotBecome(Exception):
    """This user's jobs cannot be run here; the text says why."""


class Account(NamedTuple):
    """A user as this computer knows him."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str

    def variables(self) -> dict[bytes, bytes]:
        """Returns what the environment of each of his commands says of him, whatever he has submitted."""
        return {
            b"HOME": os.fsencode(self.home),
            b"USER": os.fsencode(self.name),
            b"LOGNAME": os.fsencode(self.name),
            b"SHELL": os.fsencode(self.shell),
        }


def find(name: str, *, min_uid: int, allow_root: bool) -> Account:
    """Looks a user up who may be served. That it can be a user's name, the agent has seen to: it makes paths of it.

    Raises:
        CannotBecome: there is none of that name, or he is none that this computer serves.
    """
    try:
        found = pwd.getpwnam(name)
    except KeyError:
        raise CannotBecome(f"there is no user {name} on this computer") from None
    if found.pw_uid == 0 and not allow_root:
        raise CannotBecome("jobs of root are not run on this computer (allow_root)")
    if found.pw_uid != 0 and found.pw_uid < min_uid:
        raise CannotBecome(f"user {name} has uid {found.pw_uid}, and this computer serves those from {min_uid} on")
    return Account(name, found.pw_uid, found.pw_gid, found.pw_dir or "/", found.pw_shell or "/bin/sh")


def become(account: Account) -> None:
    """Makes this process the user's for good: groups first, for which root's rights are needed.

    Raises:
        CannotBecome: the kernel does not let us.
    """
    _leave_session_keyring()
    os.chdir("/")
    try:
        os.initgroups(account.name, account.gid)
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
    except OSError as error:
        raise CannotBecome(f"cannot become {account.name}: {os.strerror(error.errno or 0)}") from None
    if account.uid and (os.getresuid() != (account.uid,) * 3 or _has_root_group(account)):
        raise CannotBecome(f"could not leave root's rights behind for {account.name}")
    os.umask(0o077)


def _leave_session_keyring() -> None:
    """Has a new session keyring, and so none of the keys that whoever started the agent had in his.

    Done with root's rights and at his charge: a user whose quota is used up would keep the old one.

    Raises:
        CannotBecome: the kernel has keyrings and does not give us one.
    """
    number = _KEYCTL.get(os.uname().machine)
    if number is None:
        return
    call = ctypes.CDLL(None, use_errno=True).syscall
    # Where keyrings are forbidden to us, as in most containers, they are to him.
    if call(number, _KEYCTL_JOIN_SESSION_KEYRING, None) < 0 and ctypes.get_errno() not in (errno.ENOSYS, errno.EPERM):
        raise CannotBecome(f"cannot leave root's keyring behind: {os.strerror(ctypes.get_errno())}")


def make_directory(directory: str, account: Account) -> None:
    """Makes the starter's directory, the user's own, below one of root's; one that is somebody else's is set aside.

    Raises:
        CannotBecome: it cannot be made.
    """
    try:
        status = os.lstat(directory)
    except FileNotFoundError:
        status = None
    try:
        if status is not None and (not stat.S_ISDIR(status.st_mode) or status.st_uid != account.uid):
            # The name was given to another uid since. What the one before has left is not this one's to see. It gets a
            # name that no user can have.
            parent, name = os.path.split(directory)
            os.rename(directory, os.path.join(parent, f".{name}.of-{status.st_uid}-{status.st_ino}"))
            status = None
        if status is None:
            os.mkdir(directory, 0o700)
            os.chown(directory, account.uid, account.gid, follow_symlinks=False)
    except OSError as error:
        raise CannotBecome(f"cannot make {directory}: {os.strerror(error.errno or 0)}") from None


def check_reachable(directory: str) -> None:
    """Makes sure that the user, who we are by now, gets into his directory.

    Raises:
        CannotBecome: a directory above it is closed to him.
    """
    try:
        os.stat(os.path.join(directory, "."))
    except OSError as error:
        text = f"{directory} is closed to its user ({os.strerror(error.errno or 0)}): the agent's state has to be "
        raise CannotBecome(f"{text}where everybody gets through, such as /var/lib/lanai-agent") from None


def _has_root_group(account: Account) -> bool:
    if account.gid == 0:
        return False
    try:
        belongs = account.name in grp.getgrgid(0).gr_mem
    except KeyError:
        belongs = False
    return 0 in os.getgroups() and not belongs

"""A file system in user space that falls ill on command: with errors of any number, dead, or without an answer.

The real kernel's FUSE, spoken without a library: the files of one flat directory, kept in memory, are enough. It is a
process of its own. SIGKILL is its death (ENOTCONN for whoever asks), SIGSTOP its silence, SIGCONT the end of that; a
number written to its standard input is the error that it answers everything with from then on, 0 for none.

    python -m services.sickfs /dev/fuse-descriptor
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import stat
import struct
import subprocess
import sys
import time
from pathlib import Path

LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE = 1, 2, 3, 4, 14, 15, 16, 17, 18
FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, ACCESS, CREATE, INTERRUPT, BATCH_FORGET = 25, 26, 27, 28, 29, 34, 35, 36, 42
MINOR = 31
_REQUEST = struct.Struct("<IIQQIIII")
_ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
_READ_BYTES = (1 << 17) + 4096
_DETACH, _FORCE = 2, 1
_libc = ctypes.CDLL(None, use_errno=True)


class SickFs:
    """One such file system, mounted. For root only."""

    def __init__(self, point: Path) -> None:
        self.point = point
        point.mkdir(exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        self.mount()

    def mount(self) -> None:
        """Mount it, anew where it is dead."""
        self.unmount()
        device = os.open("/dev/fuse", os.O_RDWR)
        try:
            options = f"fd={device},rootmode=40777,user_id=0,group_id=0,allow_other,default_permissions"
            if _libc.mount(b"sickfs", os.fsencode(self.point), b"fuse", 0, options.encode()):
                raise OSError(ctypes.get_errno(), "mount")
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(device)], pass_fds=[device], stdin=subprocess.PIPE
            )
        finally:
            os.close(device)
        assert os.listdir(self.point) == []

    def answer(self, number: int) -> None:
        """Everything is answered with this error from now on; 0: as it should be."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(bytes([number]))
        self._process.stdin.flush()
        while self._look() != number:
            time.sleep(0.005)  # it has not read that yet

    def _look(self) -> int:
        try:
            os.statvfs(self.point)
        except OSError as error:
            return error.errno or 0
        return 0

    def stop(self) -> None:
        """It answers nobody any more."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """It answers again, also those who have waited."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def die(self) -> None:
        """Its server is killed: whoever asks is told that nobody is there."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdin is not None
            self._process.stdin.close()
            self._process = None

    def unmount(self) -> None:
        """It is gone, whoever uses it."""
        self.die()
        while not _libc.umount2(os.fsencode(self.point), _DETACH | _FORCE):
            pass  # there may be several, one over the other


class _Server:
    """The files, by number of inode; the directory is number 1."""

    def __init__(self, device: int) -> None:
        self._device = device
        self._error = 0
        self._names: dict[bytes, int] = {}
        self._files: dict[int, bytearray] = {1: bytearray()}

    def run(self) -> None:
        poller = select.poll()
        poller.register(self._device, select.POLLIN)
        poller.register(0, select.POLLIN)
        while True:
            ready = dict(poller.poll())
            if 0 in ready:
                told = os.read(0, 1)
                if not told:
                    return
                self._error = told[0]
            if self._device in ready:
                try:
                    request = os.read(self._device, _READ_BYTES)
                except OSError as error:
                    if error.errno == errno.ENODEV:
                        return
                    continue
                self._on_request(request)

    def _on_request(self, request: bytes) -> None:
        _, code, unique, node, *_ = _REQUEST.unpack_from(request)
        if code in (FORGET, BATCH_FORGET, INTERRUPT):
            return
        body = request[_REQUEST.size :]
        answer: bytes | int = self._error
        if not self._error or code in (INIT, RELEASE, RELEASEDIR):
            answer = self._answer(code, node, body)
        if isinstance(answer, int):
            data = struct.pack("<IiQ", 16, -answer, unique)
        else:
            data = struct.pack("<IiQ", 16 + len(answer), 0, unique) + answer
        try:
            os.write(self._device, data)
        except FileNotFoundError:
            pass  # whoever asked was killed meanwhile

    def _answer(self, code: int, node: int, body: bytes) -> bytes | int:
        if code == INIT:
            return struct.pack("<IIIIHHIIHH32x", 7, MINOR, 0, 0, 8, 8, 1 << 16, 1, 16, 0)
        if code == LOOKUP:
            name = body.rstrip(b"\0")
            return self._entry(self._names[name]) if name in self._names else errno.ENOENT
        if code in (GETATTR, SETATTR):
            if code == SETATTR and struct.unpack_from("<I", body)[0] & 8:
                size = struct.unpack_from("<Q", body, 16)[0]
                self._files[node][size:] = bytes(max(0, size - len(self._files[node])))
            return struct.pack("<QII", 0, 0, 0) + self._attr(node)
        if code in (OPEN, OPENDIR):
            return struct.pack("<QII", 0, 0, 0)
        if code == CREATE:
            name = body[16:].rstrip(b"\0")
            number = self._names.setdefault(name, len(self._files) + 1)
            self._files.setdefault(number, bytearray())
            return self._entry(number) + struct.pack("<QII", 0, 0, 0)
        if code == READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            return bytes(self._files[node][offset : offset + size])
        if code == WRITE:
            _, offset, size = struct.unpack_from("<QQI", body)
            self._files[node][offset : offset + size] = body[40 : 40 + size]
            return struct.pack("<II", size, 0)
        if code == STATFS:
            return struct.pack("<QQQQQIIII24x", 1 << 20, 1 << 20, 1 << 20, 1000, 1000, 4096, 255, 4096, 0)
        if code in (READDIR, ACCESS, FLUSH, RELEASE, RELEASEDIR):
            return b""
        return errno.ENOSYS

    def _entry(self, node: int) -> bytes:
        return struct.pack("<QQQQII", node, 0, 0, 0, 0, 0) + self._attr(node)

    def _attr(self, node: int) -> bytes:
        mode = stat.S_IFDIR | 0o777 if node == 1 else stat.S_IFREG | 0o666
        size = len(self._files[node])
        return _ATTR.pack(node, size, (size + 511) // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


if __name__ == "__main__":
    _Server(int(sys.argv[1])).run()

"""How many files the starter may have open at once, and how many its commands may.

Standard library only, part of the starter. A slot is a pair of files that stays open, so that a thousand slots need
more than the usual 1,024 descriptors. Commands must not notice: some programs go through all descriptors that they may
have, and others use `select`, which fails beyond 1,024.

Theory of operation. The soft limit is raised to the hard one when descriptors get scarce, and for the moment of each
spawn it is what it was before: a process inherits the limit of that moment, what is open already stays open, and there
is no other thread that could open a file meanwhile. As long as the first half is enough nothing is raised, and a spawn
costs nothing more. Some descriptors are left to everything but slots and pipes, since a starter that cannot open
/proc or answer its agent is worth nothing.
"""

import errno
import os
import resource

LEFT_TO_OTHERS = 64
"""Where the limit is small, a quarter of it."""


class OpenFiles:
    """The limit of this process. Made once; `lower` and `lift` come in pairs."""

    def __init__(self) -> None:
        self._given, self._most = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._held_below = self._most - min(LEFT_TO_OTHERS, self._most // 4)
        self._is_raised = False

    def hold(self, *descriptors: int) -> None:
        """These were just opened and are to stay open for long.

        Raises:
            OSError: EMFILE, as if there were no more of them: too few would be left. They have been closed.
        """
        highest = max(descriptors)
        if not self._is_raised and highest >= self._given // 2 and self._most > self._given:
            self._is_raised = True
            self.lift()
        if highest >= self._held_below:
            for descriptor in descriptors:
                os.close(descriptor)
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    def lower(self) -> None:
        """A command is about to be spawned, which gets the limit that we were given."""
        if self._is_raised:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self._given, self._most))

    def lift(self) -> None:
        """It has been spawned."""
        if self._is_raised:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self._most, self._most))

    def shortage(self) -> str:
        """What to say where none is left."""
        most = self._most
        return f"the starter may have {most} files open; start the agent with a higher limit (ulimit -Hn)"


open_files = OpenFiles()

"""The replay of recorded workloads against any policy: reading traces, the clock of a replay, and what is measured.

It must not decide anything: which job starts when is decided by ``lanai.core``, the same code that decides in the hub.
Of Lanai it imports ``lanai.model`` and ``lanai.core``. It opens no file and reads no clock.
"""

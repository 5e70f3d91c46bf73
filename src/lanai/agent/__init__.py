"""The program on a node: its own pure state machine, the starter that runs commands, output, usage, the result spool.

It must not choose which job runs, only whether a grant can be honoured here. Of Lanai it imports ``lanai.model`` and
``lanai.wire``; ``starter.py`` imports the standard library only and is started with ``python -m``.
"""

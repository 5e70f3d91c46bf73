"""The running hub: inbox, commit-then-send loop, connections, heartbeats, clock. The only owner of the core.

It must not decide what the core decides, and sends nothing before the transaction that allows it is on disk. It starts
the API process with ``python -m``; it never imports it.
"""

"""The only door for clients: HTTP on a Unix socket and on TLS, in a process of its own.

It parses and checks submissions, reads the store and forwards commands to the hub over the wire. It must not write to
the store or import the hub or the core.
"""

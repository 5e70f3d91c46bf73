"""The messages between hub, agents and the API process: framing, versions, authentication, without I/O.

It turns bytes into checked messages and back. It must not decide what a message means, and it keeps no state of the
queue. Of Lanai it imports ``lanai.model`` and nothing else.
"""

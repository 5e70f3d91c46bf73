"""The ``lanai`` command; one file per verb in ``verbs/``.

It parses arguments, calls the client and prints: data on stdout, talk on stderr. It must not reach around the client;
hub and agent are started as processes with ``python -m``.
"""

"""One file per verb: the file's name is the verb, the first line of its docstring the help in ``lanai --help``.

Each module holds a click command named ``command``, which returns the exit code (None is 0). It is imported only when
its verb is typed. To add a verb, add a file.
"""

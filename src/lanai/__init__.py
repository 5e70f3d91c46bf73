"""Lanai takes lists of commands and gets every one of them done, on whatever computers there are.

The rooms of the house and the arrows between them are described in docs/architecture.md. This module holds the
version and nothing else, so that importing it is cheap for every process.
"""

__version__ = "0.1.0"

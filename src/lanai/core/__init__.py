"""Every decision, pure: ``(now, events) -> effects``.

It must not read a clock, file, socket or random source, start a task or write a log: time and events come in as
arguments, and what is to be done goes out as values. Of Lanai it imports ``lanai.model`` and nothing else.
"""

"""The words of Lanai as values: ids, units, resources, jobs, batches, nodes, settings, errors.

It validates and converts, and decides nothing. It imports nothing else of Lanai, and reads no clock, file or socket.
"""

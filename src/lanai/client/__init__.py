"""The Python client: speaks to the API process, and nothing else.

It must not open the store or speak to an agent. Of Lanai it imports ``lanai.model`` and ``lanai.wire``.
"""

"""What is on disk: one port, and the engines behind it; SQL in files, migrations.

It writes and reads what it is told to, in transactions. It must not decide anything about jobs. Of Lanai it imports
``lanai.model`` and nothing else.
"""

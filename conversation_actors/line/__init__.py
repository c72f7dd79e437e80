"""A line of its own between a client and an owner's process: what is said on it, and who may say it.

Bytes become frames (`frames`), and frames become messages (`messages`). Before the first frame both sides prove that
they know a secret (`proof`). Nothing here unpickles what has come.
"""

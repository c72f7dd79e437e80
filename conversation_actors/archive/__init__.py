"""The whole record of every conversation, in a database: written behind Redis, and read back when Redis has it no more.

The only package that imports SQLAlchemy and Alembic; both come with the extra ``archive``, and are imported when a part
of this package is.
"""

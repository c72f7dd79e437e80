"""Conversations out and in: exports and imports, backups, and what other stores have kept."""

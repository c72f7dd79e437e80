"""Processes and their deaths: the worker, its supervisor, who watches, who calls the next agent."""

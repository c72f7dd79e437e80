"""Processes and their deaths: the worker, its parent, who watches, who calls the next agent."""

"""Processes and their deaths: the worker, its supervisor, its failure detector, the call for a successor."""

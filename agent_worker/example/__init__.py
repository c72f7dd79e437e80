"""The example agent, and the models it uses."""

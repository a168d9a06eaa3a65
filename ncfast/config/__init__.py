"""Configuration: YAML files into frozen, checked models.

Nothing is gathered here: whoever needs an agent's models shall not load a hub's.
"""

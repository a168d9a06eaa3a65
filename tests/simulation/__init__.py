"""A whole installation in one process on a virtual clock: real hubs and agents over a simulated kernel and network.

Everything that happens is a pure function of a seed: `python -m tests.simulation --seed N` shows it again.
"""

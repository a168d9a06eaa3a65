"""Benchmarks: the product beside two chained HAProxy processes, on one machine, in one run.

``python -m bench`` runs them; ``docs/benchmarks.md`` says what each measures and how to read it.
"""

"""Links between the hubs of a cluster: listening, dialling, who may join, which of two links stays.

Nothing is gathered here: a hub without a cluster reads certificates with `trust`, and loads no more of it.
"""

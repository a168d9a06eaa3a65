"""A scripted hub that shows whether somebody's agent keeps the rules of docs/protocol.md, and names the one it breaks.

The scripts are data (`scenario`). What holds of every frame at any time is judged by `referee`; what a script waits for
names its rule itself. Nothing here is part of a hub or an agent that runs.
"""

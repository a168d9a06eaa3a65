"""A scripted end of the tunnel that shows whether somebody's agent or hub keeps the rules of docs/protocol.md, and
names the one it breaks: a hub for agents (`agents`), an agent and clients for hubs (`hubs`).

The scripts are data (`scenario`). What holds of every frame at any time is judged by a `referee`; what a script waits
for names its rule itself. Nothing here is part of a hub or an agent that runs.
"""

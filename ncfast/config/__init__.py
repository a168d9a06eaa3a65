"""Configuration: YAML files into frozen, checked models."""

from ncfast.config.agent import AgentConfig, ClientTls, Connector, Health, Reconnect
from ncfast.config.ha import Ha, Mesh, MeshTls
from ncfast.config.hub import (
    Admin,
    Auth,
    Edge,
    HubConfig,
    Jwt,
    Limits,
    Listener,
    ServerTls,
)
from ncfast.config.sections import Drain, EndLimits, FlowConfig, Logging, Tunnel
from ncfast.config.values import CIDR, Address

__all__ = [
    "CIDR",
    "Address",
    "Admin",
    "AgentConfig",
    "Auth",
    "ClientTls",
    "Connector",
    "Drain",
    "Edge",
    "EndLimits",
    "FlowConfig",
    "Ha",
    "Health",
    "HubConfig",
    "Jwt",
    "Limits",
    "Listener",
    "Logging",
    "Mesh",
    "MeshTls",
    "Reconnect",
    "ServerTls",
    "Tunnel",
]

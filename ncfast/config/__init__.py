"""Configuration: YAML files into frozen, checked models."""

from ncfast.config.agent import AgentConfig, ClientTls, Connector, Health, Reconnect
from ncfast.config.auth import resolve_auth
from ncfast.config.changes import reloaded, waits_for_restart
from ncfast.config.checks import warnings
from ncfast.config.development import development_hub
from ncfast.config.ha import Ha, Mesh, MeshTls
from ncfast.config.hardening import advice
from ncfast.config.hub import (
    Admin,
    Auth,
    Edge,
    HubConfig,
    HubDrain,
    Jwt,
    Limits,
    Listener,
    ServerTls,
)
from ncfast.config.loader import agent_from_flags, load_agent, load_any, load_hub
from ncfast.config.problems import ConfigError, Problem
from ncfast.config.sections import Drain, EndLimits, FlowConfig, Logging, Tunnel
from ncfast.config.values import CIDR, Address

__all__ = [
    "CIDR",
    "Address",
    "Admin",
    "AgentConfig",
    "Auth",
    "ClientTls",
    "ConfigError",
    "Connector",
    "Drain",
    "Edge",
    "EndLimits",
    "FlowConfig",
    "Ha",
    "Health",
    "HubConfig",
    "HubDrain",
    "Jwt",
    "Limits",
    "Listener",
    "Logging",
    "Mesh",
    "MeshTls",
    "Problem",
    "Reconnect",
    "ServerTls",
    "Tunnel",
    "advice",
    "agent_from_flags",
    "development_hub",
    "load_agent",
    "load_any",
    "load_hub",
    "reloaded",
    "resolve_auth",
    "waits_for_restart",
    "warnings",
]

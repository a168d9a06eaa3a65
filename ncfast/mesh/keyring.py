"""Certificates and secret in force: taken from the configuration, and followed when their files are replaced."""

from __future__ import annotations

import ssl
from dataclasses import dataclass

from ncfast.config.ha import Mesh as MeshConfig
from ncfast.mesh.certificates import Certificates, WebTls, read_secret
from ncfast.net.seam import Net
from ncfast.net.watched import Watched
from ncfast.observe import log

_log = log.get("mesh")

FILES_EVERY = 2.0  # seconds between two looks at the files


@dataclass(frozen=True, slots=True)
class Keys:
    """What was read, and from what."""

    certificates: Certificates | None
    secret: bytes | None
    files: Watched


class Keyring:
    """For handshakes from now on; links that stand keep what they were made with."""

    def __init__(self, net: Net, cluster: str, replica_id: str) -> None:
        self._net = net
        self._cluster = cluster
        self._replica_id = replica_id
        self._config: MeshConfig | None = None
        self._keys = Keys(None, None, Watched(()))
        self._web = WebTls()  # without certificates of our own
        self._timer = net.call_later(FILES_EVERY, self._look)

    @property
    def certificates(self) -> Certificates | None:
        return self._keys.certificates

    @property
    def secret(self) -> bytes | None:
        return self._keys.secret

    async def web_context(self) -> ssl.SSLContext:
        """TLS towards an ingress."""
        certificates = self._keys.certificates
        return await (certificates.web if certificates is not None else self._web).context(self._net.loop)

    def load(self, config: MeshConfig) -> Keys:
        """Reads what the configuration names; `use` puts it in force. Raises OSError, with section and remedy."""
        named = [config.secret_file] if config.secret_file is not None else []
        if config.tls is not None:
            named += [config.tls.ca_bundle, config.tls.cert_file, config.tls.key_file]
        files = Watched(named)
        certificates = Certificates(config.tls, self._cluster, self._replica_id) if config.tls is not None else None
        secret = read_secret(config.secret_file) if config.secret_file is not None else None
        return Keys(certificates, secret, files)

    def use(self, config: MeshConfig, keys: Keys) -> None:
        self._config = config
        self._keys = keys

    def close(self) -> None:
        """No more looks at the files."""
        self._timer.cancel()

    def _look(self) -> None:
        self._timer = self._net.call_later(FILES_EVERY, self._look)
        if self._config is None or not self._keys.files.changed():
            return
        try:
            self.use(self._config, self.load(self._config))
        except OSError as exc:
            _log.warning(
                "mesh_files_refused", problems=[str(exc)], detail="the former certificates and secret stay in use"
            )
        else:
            _log.info("mesh_files_reloaded", replica=self._replica_id)

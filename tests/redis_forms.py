"""A real Sentinel, a real Cluster of one node and a server with TLS, of the programs that are there."""

import secrets
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from kcg_cache.embedded.binaries import find_valkey
from kcg_cache.embedded.launcher import Launcher
from kcg_cache.embedded.ports import LOOPBACK, free_port
from kcg_cache.embedded.valkey import EmbeddedValkey, start_valkey
from tests.waiting import eventually

SERVICE = "kcg-master"
SENTINEL_PASSWORD = secrets.token_hex(8)


@contextmanager
def sentinel_of(host: str, master_port: int, password: str) -> Iterator[int]:
    """Run a Sentinel that watches a master and asks for a password of its own; give its port."""
    port = free_port()
    settings = {"port": str(port), "bind": LOOPBACK, "requirepass": SENTINEL_PASSWORD}
    with _running(find_valkey(), settings, "--sentinel"), _client(port, password=SENTINEL_PASSWORD) as client:
        eventually(lambda: _answers(client))
        client.execute_command("SENTINEL", "MONITOR", SERVICE, host, master_port, 1)
        client.execute_command("SENTINEL", "SET", SERVICE, "auth-pass", password)
        yield port


@contextmanager
def cluster_of_one() -> Iterator[EmbeddedValkey]:
    """Run a Cluster of one node, which has every slot."""
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with start_valkey(options=options) as node, _client(node.port, password=node.password) as client:
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        eventually(lambda: b"cluster_state:ok" in client.execute_command("CLUSTER", "INFO"))
        yield node


def tls_program() -> Path | None:
    """Find a server that was built with TLS: the embedded one is not."""
    found = shutil.which("redis-server")
    if found is None:
        return None
    libraries = subprocess.run(["ldd", found], capture_output=True, text=True, check=False).stdout
    return Path(found) if "libssl" in libraries else None


@contextmanager
def tls_server(program: Path, certificates: Mapping[str, Path], *, clients: str) -> Iterator[int]:
    """Run a server that speaks only TLS; `clients`: whether they need a certificate, "yes" or "no". Give its port."""
    port = free_port()
    settings = {
        "port": "0",
        "tls-port": str(port),
        "bind": LOOPBACK,
        "save": "",
        "tls-cert-file": str(certificates["cert"]),
        "tls-key-file": str(certificates["key"]),
        "tls-ca-cert-file": str(certificates["ca"]),
        "tls-auth-clients": clients,
    }
    with (
        _running(program, settings),
        _client(
            port,
            ssl=True,
            ssl_ca_certs=str(certificates["ca"]),
            ssl_certfile=str(certificates["cert"]),
            ssl_keyfile=str(certificates["key"]),
        ) as client,
    ):
        eventually(lambda: _answers(client))
        yield port


@contextmanager
def _running(program: Path, settings: Mapping[str, str], *options: str) -> Iterator[None]:
    launcher = Launcher()
    try:
        file = launcher.directory / "server.conf"
        file.write_text("".join(f'{name} "{value}"\n' for name, value in settings.items()))
        launcher.spawn([program, file, *options], directory=launcher.directory, user=None, environment={})
        yield
    finally:
        launcher.close()


def _client(port: int, **arguments: Any) -> "redis.Redis":
    return redis.Redis(host=LOOPBACK, port=port, **arguments)


def _answers(client: "redis.Redis") -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def certificates(directory: Path, name: str) -> dict[str, Path]:
    """Make an authority called `name`, and by it a certificate for the loopback; give ca, cert and key."""
    made = {part: directory / f"{name}.{part}" for part in ("ca", "ca-key", "cert", "key")}
    about = directory / f"{name}.cnf"
    about.write_text(f"subjectAltName=IP:{LOOPBACK},DNS:localhost\n")
    new: list[str | Path] = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    by: list[str | Path] = ["-CA", made["ca"], "-CAkey", made["ca-key"], "-CAcreateserial"]
    request = directory / f"{name}.csr"
    commands: tuple[list[str | Path], ...] = (
        [*new, "-x509", "-days", "2", "-subj", f"/CN={name}", "-keyout", made["ca-key"], "-out", made["ca"]],
        [*new, "-subj", f"/CN={LOOPBACK}", "-keyout", made["key"], "-out", request],
        ["x509", "-req", "-days", "2", "-in", request, "-extfile", about, *by, "-out", made["cert"]],
    )
    for command in commands:
        subprocess.run(["openssl", *command], check=True, capture_output=True)
    return made

"""Redis servers in company: TLS in front of one, and a master with replicas and sentinels."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis

from tests.dual_port import DualPort
from tests.servers import RedisServer, free_port, start_server, wait_for


class Certificates:
    """A certificate authority with one server certificate (127.0.0.1, localhost) and one client's.

    Made by the ``openssl`` command, in a directory that ``close`` removes.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="phk-tls-"))
        path = self._path
        self.ca = path("ca.crt")
        self.server_certificate, self.server_key = path("server.crt"), path("server.key")
        self.client_certificate, self.client_key = path("client.crt"), path("client.key")
        self._openssl(
            "req", "-x509", "-subj", "/CN=test authority", "-days", "30",
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
            "-keyout", self._path("ca.key"), "-out", self.ca, *self._NEW_KEY,
        )  # fmt: skip
        self._sign("server", "subjectAltName=IP:127.0.0.1,DNS:localhost")
        self._sign("client", "extendedKeyUsage=clientAuth")

    _NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")

    def _path(self, name: str) -> str:
        return str(self.directory / name)

    def _sign(self, name: str, extension: str) -> None:
        request, extensions = self._path(f"{name}.csr"), self._path(f"{name}.ext")
        Path(extensions).write_text(extension + "\n")
        self._openssl(
            "req", "-new", "-subj", f"/CN={name}", "-out", request,
            "-keyout", self._path(f"{name}.key"), *self._NEW_KEY,
        )  # fmt: skip
        self._openssl(
            "x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", self._path("ca.key"),
            "-CAcreateserial", "-days", "30", "-extfile", extensions,
            "-out", self._path(f"{name}.crt"),
        )  # fmt: skip

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)

    def close(self) -> None:
        """Remove the files."""
        shutil.rmtree(self.directory, ignore_errors=True)


class TlsServer:
    """A Redis server behind a TLS end point, as not every ``redis-server`` has TLS built in.

    Plain connections to ``port`` fail; with ``client_certificate_required`` so do those without
    the client certificate. ``server`` is the server itself.
    """

    _PROXY = """
import asyncio, ssl, sys
port, target, certificate, key, authority = sys.argv[1:]

async def copy(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()

async def serve(reader, writer):
    far_reader, far_writer = await asyncio.open_connection("127.0.0.1", int(target))
    await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

async def main():
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    if authority:
        context.load_verify_locations(authority)
        context.verify_mode = ssl.CERT_REQUIRED
    server = await asyncio.start_server(serve, "127.0.0.1", int(port), ssl=context)
    print("ready", flush=True)
    await server.serve_forever()

asyncio.run(main())
"""

    def __init__(self, *, client_certificate_required: bool = False) -> None:
        self.certificates = Certificates()
        self.server = start_server()
        self.port = free_port()
        files = self.certificates
        self.process = subprocess.Popen(
            [
                sys.executable, "-c", self._PROXY, str(self.port), str(self.server.port),
                files.server_certificate, files.server_key,
                files.ca if client_certificate_required else "",
            ],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line != b"ready\n":
            self.stop()
            raise RuntimeError("the TLS end point did not start")

    def url(self, scheme: str, db: int = 0) -> str:
        """Return the URL of a database at the TLS end point."""
        return f"{scheme}://127.0.0.1:{self.port}/{db}"

    def stop(self) -> None:
        """End the TLS end point and the server, and remove the certificates."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.server.stop()
        self.certificates.close()

    def __enter__(self) -> TlsServer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()


class _Sentinel(RedisServer):
    """One sentinel process; its configuration file must be a real, writable one."""

    def __init__(self, master_name: str, master_port: int, quorum: int, password: str) -> None:
        super().__init__()
        self._settings = (
            f"sentinel monitor {master_name} 127.0.0.1 {master_port} {quorum}\n"
            f"sentinel down-after-milliseconds {master_name} 1500\n"
            f"sentinel failover-timeout {master_name} 3000\n"
            f"sentinel parallel-syncs {master_name} 1\n"
        )
        if password:
            self._settings += f"sentinel auth-pass {master_name} {password}\n"

    def command(self) -> list[str]:
        """Return the command line, having written the configuration if there is none yet."""
        path = self.directory / "sentinel.conf"
        if not path.exists():
            path.write_text(
                f'port {self.port}\nbind 127.0.0.1\ndir {self.directory}\nsave ""\n{self._settings}'
            )
        return [self.binary, str(path), "--sentinel"]


class SentinelSetup:
    """A master, its replica and one to three sentinels that watch them, on free loopback ports.

    With a ``password`` the master and its replica want it; the sentinels never want one.
    With ``certificates`` the master and the first sentinel speak TLS at ``fronts``, two ports that
    speak plainly too; that of the master is the one that the sentinels tell.
    """

    master_name = "main"

    def __init__(
        self, sentinels: int = 1, password: str = "", certificates: Certificates | None = None
    ) -> None:
        secret = ("--requirepass", password, "--masterauth", password) if password else ()
        # Without the delay a replica's first copy would come five seconds late.
        self.master = RedisServer("--repl-diskless-sync-delay", "0", *secret)
        self.master.start()
        self.fronts: list[DualPort] = []
        if certificates is not None:
            self.fronts.append(DualPort(self.master.port, certificates))
        told = self.fronts[0].port if self.fronts else self.master.port
        self.replica = RedisServer("--replicaof", "127.0.0.1", str(told), *secret)
        self.replica.start()
        for server in (self.master, self.replica):
            server.password = password or None
        wait_for(self._replica_is_up, 20, message="the replica did not find its master")
        quorum = sentinels // 2 + 1
        self.sentinels = [
            _Sentinel(self.master_name, told, quorum, password) for _ in range(sentinels)
        ]
        for sentinel in self.sentinels:
            sentinel.start()
        wait_for(self._is_complete, 20, message="the sentinels did not see the whole setup")
        if certificates is not None:
            self.fronts.append(DualPort(self.sentinels[0].port, certificates))

    def _replica_is_up(self) -> bool:
        replication: dict[str, Any] = self.replica.client().info("replication")  # type: ignore[assignment]
        return bool(replication["master_link_status"] == "up")

    def _is_complete(self) -> bool:
        others = len(self.sentinels) - 1
        return all(
            state["num-slaves"] >= 1 and state["num-other-sentinels"] >= others
            for state in map(self._state, self.sentinels)
        )

    def _state(self, sentinel: RedisServer) -> dict[str, Any]:
        answer: dict[str, Any] = sentinel.client().sentinel_master(self.master_name)  # type: ignore[assignment]
        return answer

    def url(
        self,
        scheme: str,
        db: int = 0,
        login: str = "",
        sentinels: Sequence[RedisServer] | None = None,
    ) -> str:
        """Return a broker URL that lists the sentinels; ``login`` is ``"user:password@"``."""
        chosen = self.sentinels if sentinels is None else sentinels
        return ";".join(f"{scheme}://{login}127.0.0.1:{s.port}/{db}" for s in chosen)

    def current_master_port(self) -> int:
        """Return the port of the server that the first sentinel calls the master."""
        return int(self._state(self.sentinels[0])["port"])

    def fail_over(self, timeout_seconds: float = 30.0) -> None:
        """Kill the master and wait until every sentinel names the replica, and it takes writes."""
        self.master.process.send_signal(signal.SIGKILL)  # type: ignore[union-attr]

        def took_over() -> bool:
            try:
                self.replica.client().set("failover-probe", 1, px=1000)
            except redis.RedisError:
                return False
            return all(int(self._state(s)["port"]) == self.replica.port for s in self.sentinels)

        wait_for(took_over, timeout_seconds, message="the replica did not take over")

    def stop(self) -> None:
        """End all the servers."""
        for front in self.fronts:
            front.close()
        for server in (*self.sentinels, self.replica, self.master):
            server.stop()

    def __enter__(self) -> SentinelSetup:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

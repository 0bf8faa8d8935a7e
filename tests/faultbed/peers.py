"""What is compared: this agent, and what others put between a node and its apiservers.

Each peer has the settings that its users get: the values, not the text, of its project's own files.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

from faultbed import envoy
from faultbed.network import Namespace
from support.address import Address
from support.agent_process import AgentProcess, command, environment
from support.process import Closing, StartError, wait_until

LISTEN = Address("127.0.0.1", 8443)
START_SECONDS = 15.0

_DOWN = re.compile(r"^ +server (\S+) .*\bdown;", re.MULTILINE)

Backends = Sequence[Address]


class Peer(ABC, Closing):
    """Something that listens on LISTEN in the node's namespace; as a context, ended at its end."""

    name: str
    about: str

    can: frozenset[str] = frozenset()
    """Of "names" (its list may hold one), "limit" (of its connections, settable) and "restart" (it
    can be killed and started again while clients are served)."""

    def __init__(
        self,
        folder: Path,
        node: Namespace,
        nginx: Path,
        prefix: Sequence[str] = (),
        connections: int = 0,
    ) -> None:
        self.folder = folder
        self.nginx = nginx
        self.node = node
        self.prefix = [*node.prefix, *prefix]
        self.connections = connections
        self.log = folder / f"{self.name}.log"

    @classmethod
    def missing(cls) -> str:
        """Return why it can't run here, "" if it can."""
        return ""

    @classmethod
    @abstractmethod
    def version(cls, nginx: Path) -> str: ...

    @abstractmethod
    def start(self, backends: Backends) -> None:
        """Start it and wait until it listens."""

    @abstractmethod
    def update(self, backends: Backends) -> None:
        """Give it another list while it runs, as its user would, and don't wait."""

    def left_out(self) -> Optional[set[str]]:
        """Return the backends of its list that it gives no new connections; None: can't tell."""
        return None

    def restart(self) -> None:
        """Kill it and start it again, without a word to what serves."""
        raise NotImplementedError(self.name)

    @abstractmethod
    def close(self) -> None: ...


class Agent(Peer):
    """This project, from the tree."""

    name = "agent"
    about = "kube-nginx-agent run --standalone, all defaults"
    can = frozenset({"names", "limit", "restart"})

    def __init__(
        self,
        folder: Path,
        node: Namespace,
        nginx: Path,
        prefix: Sequence[str] = (),
        connections: int = 0,
    ) -> None:
        super().__init__(folder, node, nginx, prefix, connections)
        self.process = AgentProcess(folder, nginx, LISTEN, prefix=self.prefix)
        if connections:
            self.process.settings = f"worker_connections: {connections}\n"
        self.log = self.process.log

    @classmethod
    def version(cls, nginx: Path) -> str:
        told = _output([*command("version")], environment())
        return f"{told}, {_nginx_version(nginx)}"

    def start(self, backends: Backends) -> None:
        self.process.start(backends)

    def update(self, backends: Backends) -> None:
        self.process.write(backends)

    def left_out(self) -> Optional[set[str]]:
        live = (self.process.state_dir / "kube-nginx.conf").read_text()
        return set(_DOWN.findall(live))

    def restart(self) -> None:
        self.process.restart()

    def close(self) -> None:
        self.process.close()


class Configured(Peer):
    """A proxy with one config file and a signal that has it read again."""

    file = "config"
    reload = signal.SIGHUP

    _LIMIT = re.compile(r"(?<=worker_connections )\d+")
    """Where its text has the number of its connections."""

    def __init__(
        self,
        folder: Path,
        node: Namespace,
        nginx: Path,
        prefix: Sequence[str] = (),
        connections: int = 0,
    ) -> None:
        super().__init__(folder, node, nginx, prefix, connections)
        self._child: Optional[subprocess.Popen[bytes]] = None

    @property
    def config(self) -> Path:
        return self.folder / self.file

    @abstractmethod
    def command(self) -> list[str]: ...

    @abstractmethod
    def text(self, backends: Backends) -> str:
        """Return the config."""

    def start(self, backends: Backends) -> None:
        self._write(backends)
        with self.log.open("wb") as log:
            self._child = subprocess.Popen(
                [*self.prefix, *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._is_up, START_SECONDS, f"{self.name} listens")

    def update(self, backends: Backends) -> None:
        assert self._child is not None
        self._write(backends)
        self._child.send_signal(self.reload)

    def close(self) -> None:
        """End the whole group that it is: SIGTERM first, which all of them take as *now*."""
        if self._child is None:
            return
        self._child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._child.wait(5.0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()

    def _write(self, backends: Backends) -> None:
        text = self.text(backends)
        if self.connections:
            text = self._LIMIT.sub(str(self.connections), text, count=1)
        beside = self.config.with_name("beside")
        beside.write_text(text, encoding="utf-8")
        beside.replace(self.config)

    def _is_up(self) -> bool:
        assert self._child is not None
        if self._child.poll() is not None:
            raise StartError(f"{self.name} ended:\n{self.log.read_text()}")
        return self.node.is_listening(LISTEN)


class HandWrittenNginx(Configured):
    """The config that a guide of the first search page has."""

    name = "nginx"
    about = "nginx by hand: hash $remote_addr consistent, max_fails=3 fail_timeout=30s"
    can = frozenset({"names", "limit"})

    _TEXT = """\
daemon off;
pid nginx.pid;
error_log stderr notice;
worker_processes 2;
events { worker_connections 4096; }
stream {
  upstream apiservers {
    hash $remote_addr consistent;
SERVERS  }
  server {
    listen LISTEN;
    proxy_connect_timeout 1s;
    proxy_timeout 30s;
    proxy_pass apiservers;
  }
}
"""
    _SERVER = "    server {} max_fails=3 fail_timeout=30s;\n"

    @classmethod
    def version(cls, nginx: Path) -> str:
        return _nginx_version(nginx)

    def command(self) -> list[str]:
        return [str(self.nginx), "-p", str(self.folder), "-c", str(self.config), "-e", "stderr"]

    def text(self, backends: Backends) -> str:
        servers = "".join(self._SERVER.format(backend) for backend in backends)
        return self._TEXT.replace("SERVERS", servers).replace("LISTEN", str(LISTEN))


class KubesprayNginx(HandWrittenNginx):
    """kubespray's nginx-proxy, without its HTTP health port, which answers 200 in any case."""

    name = "nginx-kubespray"
    about = "nginx as kubespray configures it"

    _TEXT = """\
daemon off;
pid nginx.pid;
error_log stderr notice;
worker_processes 2;
worker_rlimit_nofile 130048;
worker_shutdown_timeout 10s;
events { multi_accept on; worker_connections 16384; }
stream {
  upstream apiservers {
    least_conn;
SERVERS  }
  server {
    listen LISTEN;
    proxy_timeout 10m;
    proxy_connect_timeout 1s;
    proxy_pass apiservers;
  }
}
"""
    _SERVER = "    server {};\n"


class TunedHAProxy(Configured):
    """HAProxy at its best for this task: it asks /readyz itself and ends a dead one's sessions."""

    name = "haproxy-tuned"
    about = "HAProxy tuned for failover: /readyz each 1 s, 200 ms in doubt, sessions shut down"
    can = frozenset({"limit"})
    file = "haproxy.cfg"
    reload = signal.SIGUSR2

    _LIMIT = re.compile(r"(?<=maxconn )\d+")

    # redispatch 1: each retry goes to another server. observe: a client's failed connect counts.
    _TEXT = """\
global
  maxconn 4000
  log stderr format raw local0 notice
defaults
  mode tcp
  log global
  retries 3
  option redispatch 1
  timeout connect 1s
  timeout check 1s
  timeout client 10m
  timeout server 10m
frontend api
  bind LISTEN
  option clitcpka
  default_backend apiservers
backend apiservers
  balance leastconn
  option srvtcpka
  option httpchk GET /readyz
  http-check expect status 200
  default-server check check-ssl verify none inter 1s fastinter 200ms downinter 1s rise 2 fall 2
  default-server observe layer4 error-limit 1 on-error fastinter on-marked-down shutdown-sessions
SERVERS"""

    @classmethod
    def missing(cls) -> str:
        return "" if shutil.which("haproxy") else "no command haproxy: run packaging/setup bench"

    @classmethod
    def version(cls, nginx: Path) -> str:  # noqa: ARG003
        return _output(["haproxy", "-v"]).split(" - ")[0]

    def command(self) -> list[str]:
        return ["haproxy", "-W", "-db", "-f", str(self.config)]

    def text(self, backends: Backends) -> str:
        servers = (f"  server api{number} {backend}\n" for number, backend in enumerate(backends))
        return self._TEXT.replace("SERVERS", "".join(servers)).replace("LISTEN", str(LISTEN))


class KubesprayHAProxy(TunedHAProxy):
    """kubespray's haproxy, without its HTTP health port."""

    name = "haproxy-kubespray"
    about = "HAProxy as kubespray configures it"

    _TEXT = """\
global
  maxconn 4000
  log stderr format raw local0 notice
defaults
  mode tcp
  log global
  option redispatch
  retries 5
  timeout queue 5m
  timeout connect 30s
  timeout client 15m
  timeout server 15m
  timeout check 30s
  maxconn 4000
frontend api
  bind LISTEN
  default_backend apiservers
backend apiservers
  balance leastconn
  option httpchk GET /healthz
  http-check expect status 200
  default-server check check-ssl verify none inter 15s downinter 15s rise 2 fall 2
  default-server slowstart 60s maxconn 1000 maxqueue 256 weight 100
SERVERS"""


class K0sEnvoy(Configured):
    """k0s' node-local load balancing."""

    name = "envoy"
    about = "Envoy as k0s configures it"
    file = "cds.yaml"

    _BOOTSTRAP = """\
node: {{cluster: nllb-cluster, id: nllb-id}}
dynamic_resources:
  cds_config: {{path: "{clusters}"}}
static_resources:
  listeners:
  - name: apiserver
    address: {{socket_address: {{address: "{listen.host}", port_value: {listen.port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.tcp_proxy
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy
          stat_prefix: apiserver
          cluster: apiserver
"""
    _CLUSTERS = """\
resources:
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: apiserver
  connect_timeout: 0.25s
  type: STATIC
  lb_policy: RANDOM
  health_checks:
  - tcp_health_check: {}
    timeout: 1s
    interval: 5s
    healthy_threshold: 3
    unhealthy_threshold: 5
  load_assignment:
    cluster_name: apiserver
    endpoints:
    - lb_endpoints:
"""
    _ENDPOINT = (
        "      - endpoint: {{address: "
        '{{socket_address: {{address: "{0.host}", port_value: {0.port}}}}}}}\n'
    )

    @classmethod
    def missing(cls) -> str:
        return envoy.missing()

    @classmethod
    def version(cls, nginx: Path) -> str:  # noqa: ARG003
        return f"envoy {envoy.VERSION}"

    def command(self) -> list[str]:
        bootstrap = self.folder / "envoy.yaml"
        bootstrap.write_text(self._BOOTSTRAP.format(clusters=self.config, listen=LISTEN))
        # k0s starts it with --use-dynamic-base-id; this leaves no shared memory behind instead.
        options = ["--disable-hot-restart", "--log-level", "warning"]
        return [str(envoy.binary()), "-c", str(bootstrap), *options]

    def text(self, backends: Backends) -> str:
        return self._CLUSTERS + "".join(map(self._ENDPOINT.format, backends))

    def update(self, backends: Backends) -> None:
        self._write(backends)  # it watches the folder for renames


ALL: tuple[type[Peer], ...] = (
    Agent,
    HandWrittenNginx,
    KubesprayNginx,
    TunedHAProxy,
    KubesprayHAProxy,
    K0sEnvoy,
)


def _nginx_version(nginx: Path) -> str:
    done = subprocess.run([nginx, "-v"], capture_output=True, text=True, check=True)
    return done.stderr.strip().replace("nginx version: ", "")


def _output(words: Sequence[str], env: Optional[dict[str, str]] = None) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=True, env=env)
    return done.stdout.splitlines()[0].strip()

"""A whole product on one machine: central, its broker, gateways with SoftHSM2 tokens, real TLS.

Between the gateways and central stands the relay, so that the link can be cut as a cable is. Every
process is the command that an administrator would start, with the configuration he would write.

Ports, from the base on: 0 web, 1 machines, 2 gateways, 3 status, 4 broker of central; 5 and 6 what
gateways see of broker and gateway port (the relay); 7 logins by card; from 8 on four for each
gateway.
"""

import hashlib
import json
import shutil
import ssl
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import postgres, relay
from tests.support.openssl import root_above
from tests.support.processes import (
    ManagedProcess,
    accepting,
    listening,
    run,
    wait_until,
)

HOST = "127.0.0.1"
_PORTS_PER_GATEWAY = 4
GATEWAYS_MAX = 6


@dataclass(frozen=True, slots=True)
class Ports:
    """Where everything of one fleet listens."""

    base: int

    @property
    def web(self) -> int:
        """Central's pages and REST."""
        return self.base

    @property
    def machines(self) -> int:
        """Central's REST with client certificates."""
        return self.base + 1

    @property
    def joining(self) -> int:
        """Central's listener for gateways, behind the relay."""
        return self.base + 2

    @property
    def status(self) -> int:
        """Central's CRL, OCSP and CA certificates."""
        return self.base + 3

    @property
    def broker(self) -> int:
        """The broker, behind the relay."""
        return self.base + 4

    @property
    def relayed(self) -> dict[int, int]:
        """What gateways see, and what is behind."""
        return {self.base + 5: self.broker, self.base + 6: self.joining}

    @property
    def cards(self) -> int:
        """Central's login by smart card."""
        return self.base + 7

    def of_gateway(self, index: int) -> int:
        """Give the first port of a gateway: web, machines, status."""
        return self.base + 8 + index * _PORTS_PER_GATEWAY


def write_toml(path: Path, tables: dict[str, dict[str, object]]) -> None:
    """Write tables of strings, numbers and lists; JSON's form of them is TOML's too."""
    lines: list[str] = []
    for name, values in tables.items():
        lines += [f"[{name}]"] if name else []
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    path.write_text("\n".join([*lines, ""]), "utf-8")


@dataclass(slots=True)
class Central:
    """Central and its broker."""

    folder: Path
    ports: Ports
    process: ManagedProcess = field(init=False)
    broker: ManagedProcess = field(init=False)
    relay: ManagedProcess = field(init=False)
    admin_password: str = ""
    recovery_secret: str = ""
    admin_token: str = ""
    ca_bundle: str = ""
    settings: dict[str, dict[str, object]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Write the configuration and describe the processes."""
        self.folder.mkdir(parents=True)
        relayed_broker, relayed_joining = self.ports.relayed
        web = {
            "names": [HOST, "localhost"],
            "address": HOST,
            "port": self.ports.web,
            "machine_port": self.ports.machines,
            "gateway_port": self.ports.joining,
            "status_port": self.ports.status,
        }
        tables: dict[str, dict[str, object]] = {
            "": {"state": str(self.folder / "state")},
            "web": web,
            "broker": {"host": HOST, "port": self.ports.broker},
            "gateways": {"port": relayed_joining, "broker_port": relayed_broker},
        }
        for name, values in self.settings.items():
            tables[name] = tables.get(name, {}) | values
        write_toml(self.config, tables)
        self.process = self._describe("central", ["tma-central", "-c", str(self.config), "run"])
        self.broker = self._describe("broker", ["mosquitto", "-c", str(self.broker_config)])
        routes = [f"{listen}:{target}" for listen, target in self.ports.relayed.items()]
        argv = ["python3", "-m", "tests.support.relay", str(self.relay_control), *routes]
        self.relay = self._describe("relay", argv)

    @property
    def config(self) -> Path:
        """The TOML file."""
        return self.folder / "central.toml"

    @property
    def broker_config(self) -> Path:
        """What ``tma-central broker config`` writes."""
        return self.folder / "broker" / "mosquitto.conf"

    @property
    def relay_control(self) -> Path:
        """The relay's unix socket."""
        return self.folder / "relay.sock"

    @property
    def database(self) -> Path | str:
        """The SQLite file, or PostgreSQL's address for who may read all of it."""
        url = self.settings.get("database", {}).get("url")
        return postgres.for_reader(str(url)) if url else self.folder / "state" / "central.db"

    @property
    def web_url(self) -> str:
        """Pages, and REST with tokens."""
        return f"https://{HOST}:{self.ports.web}"

    @property
    def machine_url(self) -> str:
        """REST with client certificates."""
        return f"https://{HOST}:{self.ports.machines}"

    @property
    def status_url(self) -> str:
        """CRL, OCSP and CA certificates."""
        return f"http://{HOST}:{self.ports.status}"

    def command(self, *arguments: str) -> str:
        """Run one ``tma-central`` command and give what it prints."""
        return run(["tma-central", "-c", str(self.config), *arguments])

    def found(self) -> None:
        """Make CAs, keys and administrator, and the broker's configuration; start everything."""
        founded = json.loads(self.command("init", "--json"))
        self.admin_password = founded["password"]
        self.recovery_secret = founded["recovery_secret"]
        self.command("broker", "config", str(self.broker_config.parent))
        self.start_broker()
        self.relay.start()
        self.relay.wait_ready(lambda: all(map(listening, self.ports.relayed)))
        self.start()
        added = self.command("station", "add", "administrator", "--role", "admin")
        self.admin_token = added.strip()
        self.ca_bundle = root_above(ssl.get_server_certificate((HOST, self.ports.web)))
        root = ssl.PEM_cert_to_DER_cert(self.ca_bundle)
        assert hashlib.sha256(root).hexdigest() == founded["root_sha256"]

    def start(self) -> None:
        """Start the server and wait until it listens."""
        self.process.start()
        self.process.wait_ready(lambda: listening(self.ports.web) and listening(self.ports.joining))

    def start_broker(self) -> None:
        """Start mosquitto and wait until it listens."""
        self.broker.start()
        self.broker.wait_ready(lambda: listening(self.ports.broker))

    def cut_link(self) -> None:
        """Pull the cable between gateways and central."""
        relay.command(self.relay_control, "cut")

    def restore_link(self) -> None:
        """Put the cable in again."""
        relay.command(self.relay_control, "restore")

    def trouble_link(self, seed: int) -> None:
        """Let the network be bad, by chance, until ``restore_link``."""
        relay.command(self.relay_control, f"trouble {seed}")

    def troubles(self) -> int:
        """Tell how often the relay delayed, throttled or cut something short in all."""
        return relay.command(self.relay_control, "troubles")

    def traffic(self) -> int:
        """Give the bytes that passed the cable since this was asked last."""
        return relay.command(self.relay_control, "traffic")

    def gateways(self) -> dict[str, dict[str, object]]:
        """Give the registry by name, as the command prints it."""
        rows = json.loads(self.command("gateway", "list", "--json"))
        return {row["name"]: row for row in rows}

    def _describe(self, name: str, argv: list[str]) -> ManagedProcess:
        return ManagedProcess(name, argv, self.folder / f"{name}.log", extra_environ={})


@dataclass(slots=True)
class Gateway:
    """One gateway, its token and the daemon that serves the token."""

    name: str
    folder: Path
    port: int
    process: ManagedProcess = field(init=False)
    hsmd: ManagedProcess = field(init=False)
    station_token: str = ""

    def __post_init__(self) -> None:
        """Describe the processes."""
        self.process = self._describe("gateway", ["tma-gateway", "-c", str(self.config), "run"])
        self.hsmd = self._describe("hsmd", ["tma-hsmd", "--config", str(self.folder / "hsmd.toml")])

    def prepare(self) -> None:
        """Initialise a token of its own and write the configurations."""
        (self.folder / "state" / "run").mkdir(parents=True)
        (self.folder / "state").chmod(0o700)
        self._configure()
        daemon = {"socket": str(self._hsmd_socket), "state": str(self.folder / "hsmd")}
        token = {"uri": self._make_token(), "poll_s": 0.5}
        write_toml(self.folder / "hsmd.toml", {"": daemon, "token": token})

    def copy_to(self, folder: Path, port: int) -> "Gateway":
        """Copy everything that this (stopped) gateway has, token and witness too, as a thief would.

        The copy has the same name; only its paths and ports are its own.
        """
        shutil.copytree(self.folder, folder, ignore=shutil.ignore_patterns("*.sock", "*.log"))
        for file in (folder / "hsmd.toml", folder / "softhsm2.conf"):
            text = file.read_text("utf-8").replace(f"{self.folder}/", f"{folder}/")
            file.write_text(text, "utf-8")
        copy = Gateway(self.name, folder, port, station_token=self.station_token)
        copy._configure()
        return copy

    def _configure(self) -> None:
        web = {
            "names": [HOST, "localhost"],
            "address": HOST,
            "port": self.port,
            "machine_port": self.port + 1,
            "status_port": self.port + 2,
        }
        tables: dict[str, dict[str, object]] = {
            "": {"state": str(self.folder / "state"), "title": f"Line {self.name}"},
            "web": web,
            "disk": {"warning_mb": 16, "reserve_mb": 8},
        }
        write_toml(self.config, tables)

    @property
    def _hsmd_socket(self) -> Path:
        return self.folder / "state" / "run" / "hsmd.sock"

    @property
    def config(self) -> Path:
        """The TOML file."""
        return self.folder / "gateway.toml"

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.folder / "state" / "gateway.db"

    @property
    def web_url(self) -> str:
        """The technician page, and REST with station tokens."""
        return f"https://{HOST}:{self.port}"

    @property
    def machine_url(self) -> str:
        """REST with client certificates."""
        return f"https://{HOST}:{self.port + 1}"

    @property
    def status_url(self) -> str:
        """CRL, OCSP and CA certificates."""
        return f"http://{HOST}:{self.port + 2}"

    def command(self, *arguments: str, stdin: str = "") -> str:
        """Run one ``tma-gateway`` command and give what it prints."""
        return run(["tma-gateway", "-c", str(self.config), *arguments], stdin=stdin)

    def join(self, token: str) -> None:
        """Be born: start the daemon, join, start the agent, make a station."""
        self.start_hsmd()
        self.command("join", stdin=token)
        self.start()
        self.station_token = self.command("station", "add", "station-1").strip()

    def start(self) -> None:
        """Start the agent and wait until it listens."""
        self.process.start()
        self.process.wait_ready(lambda: listening(self.port) and listening(self.port + 2))

    def start_hsmd(self) -> None:
        """Start the token's daemon and wait for its socket."""
        self.hsmd.start()
        self.hsmd.wait_ready(lambda: accepting(self._hsmd_socket))

    def snapshot(self) -> dict[str, dict[str, object]]:
        """Ask what the technician page shows."""
        return json.loads(self.command("status", "--json"))

    @property
    def environ(self) -> dict[str, str]:
        """What its processes find in their environment."""
        return {"SOFTHSM2_CONF": str(self.folder / "softhsm2.conf")}

    def _make_token(self) -> str:
        """Initialise a SoftHSM2 token of this gateway's own; gives its URI for the daemon."""
        tokens = self.folder / "tokens"
        tokens.mkdir()
        (self.folder / "softhsm2.conf").write_text(
            f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        pins = [
            "--pin-file",
            str(self.folder / "pin"),
            "--so-pin-file",
            str(self.folder / "so-pin"),
        ]
        command = ["tma-provision", "token", "init", "--label", self.name, *pins]
        printed = run(command, extra_environ=self.environ)
        return printed.splitlines()[-1]

    def _describe(self, name: str, argv: list[str]) -> ManagedProcess:
        return ManagedProcess(name, argv, self.folder / f"{name}.log", extra_environ=self.environ)


class Fleet:
    """Central and its gateways in one directory."""

    def __init__(
        self,
        folder: Path,
        port_base: int,
        settings: dict[str, dict[str, object]] | None = None,
    ) -> None:
        """Describe it; ``start`` starts it. ``folder`` must not exist yet.

        ``settings`` are tables of central's configuration beside what the fleet itself needs.
        """
        self.folder = folder
        self.ports = Ports(port_base)
        self.central = Central(folder / "central", self.ports, settings=settings or {})
        self.gateways: list[Gateway] = []

    def start(self) -> None:
        """Bring up central."""
        self.central.found()

    def add_gateway(self, name: str) -> Gateway:
        """Invite a gateway, let it join and wait until central sees it online."""
        gateway = self.prepare_gateway(name)
        self.join(gateway)
        return gateway

    def prepare_gateway(self, name: str) -> Gateway:
        """Make a box with its configuration, which may still be changed; ``join`` starts it."""
        assert len(self.gateways) < GATEWAYS_MAX
        index = len(self.gateways)
        gateway = Gateway(name, self.folder / name, self.ports.of_gateway(index))
        self.gateways.append(gateway)
        gateway.prepare()
        return gateway

    def join(self, gateway: Gateway) -> None:
        """Invite a prepared gateway, let it join and wait until central sees it online."""
        gateway.join(self.central.command("gateway", "invite", gateway.name))
        self.wait_online(gateway.name)

    def wait_online(self, name: str) -> None:
        """Wait until central says that the gateway's link is up."""
        wait_until(
            lambda: self.central.gateways()[name]["link"] == "online",
            what=f"central sees {name} online",
        )

    @property
    def processes(self) -> list[ManagedProcess]:
        """Every process, in the order in which they are stopped."""
        mine = [self.central.process, self.central.relay, self.central.broker]
        return [one for gateway in self.gateways for one in (gateway.process, gateway.hsmd)] + mine

    def explain(self) -> str:
        """Give the ends of the logs that tell why something failed: of who died, else of all."""
        started = [process for process in self.processes if process.running or process.ended]
        guilty = [process for process in started if process.ended] or started
        return "\n\n".join(f"{process.log}:\n{process.tail()}" for process in guilty)

    def stop(self) -> None:
        """End every process."""
        for process in self.processes:
            process.stop()

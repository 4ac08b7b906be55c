"""A SoftHSM2 token, the daemon that holds it, and a CA born in it: all real."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509

from shared.hsm.client import HsmClient, RemoteIssuingKey, TokenState
from shared.kernel.errors import TmaError
from shared.pki import keys
from shared.pki.certificates import Issuer, ca_plan
from shared.pki.request import CertificationRequest
from tests.support.pki_hierarchy import NOW_US, Authority, subject
from tests.support.processes import ManagedProcess, run

KEY = "gateway-ca"


@dataclass(slots=True)
class SoftHsm:
    """A private directory of tokens. ``folder`` stays short: it holds a unix socket."""

    folder: Path
    environ: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """Write the configuration of the module."""
        self.tokens.mkdir(mode=0o700, parents=True)
        configuration = self.folder / "softhsm2.conf"
        configuration.write_text(
            f"directories.tokendir = {self.tokens}\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        self.environ = {"SOFTHSM2_CONF": str(configuration)}

    @property
    def tokens(self) -> Path:
        """Where the tokens are, a directory each."""
        return self.folder / "tokens"

    @property
    def pin_file(self) -> Path:
        """The user PIN."""
        return self.folder / "pin"

    def initialise(self, label: str, key: str | None = KEY) -> str:
        """Make a token as an operator does; gives the URI for the daemon."""
        pins = ["--pin-file", str(self.pin_file), "--so-pin-file", str(self.folder / "so-pin")]
        named = [] if key is None else ["--key", key]
        command = ["tma-provision", "token", "init", "--label", label, *pins, *named]
        return run(command, extra_environ=self.environ).splitlines()[-1]


@dataclass(slots=True)
class Hsmd:
    """One ``tma-hsmd`` process with its configuration."""

    folder: Path
    uri: str
    environ: dict[str, str] = field(default_factory=dict[str, str])
    policy: str = ""
    process: ManagedProcess = field(init=False)

    def __post_init__(self) -> None:
        """Write the configuration and describe the process."""
        self.folder.mkdir(exist_ok=True)
        config = self.folder / "hsmd.toml"
        config.write_text(
            f'socket = "{self.socket}"\nstate = "{self.state}"\n'
            f'[token]\nuri = "{self.uri}"\npoll_s = 0.1\nsettle_s = 0\n{self.policy}'
        )
        self.process = ManagedProcess(
            "hsmd",
            ["tma-hsmd", "--config", str(config)],
            self.folder / "hsmd.log",
            extra_environ=self.environ,
        )

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.folder / "s"

    @property
    def state(self) -> Path:
        """What it remembers."""
        return self.folder / "state"

    def start(self) -> None:
        """Start it and wait until it listens."""
        self.socket.unlink(missing_ok=True)  # of a process that was killed
        self.process.start()
        self.process.wait_ready(self.socket.exists)


async def observed(client: HsmClient, wanted: Callable[[TokenState], bool]) -> TokenState:
    """Ask for the state until it is as wanted, also while the daemon is being started."""
    async with asyncio.timeout(30):
        while True:
            try:
                state = await client.state()
            except TmaError:
                pass
            else:
                if wanted(state):
                    return state
            await asyncio.sleep(0.01)


async def settled(client: HsmClient, *states: str) -> TokenState:
    """Wait until the token is in one of these states."""
    return await observed(client, lambda state: state.state in states)


async def born(client: HsmClient, parent: Authority, key: str = KEY) -> RemoteIssuingKey:
    """Let the token's key become a gateway CA below ``parent``, as a join does."""
    request = CertificationRequest.parse(await client.birth_csr(key, subject("gw-01 CA")))
    der = parent.issue(
        ca_plan(request.subject, request.public_key, path_length=0, not_before_us=NOW_US)
    )
    await client.adopt(key, der)
    certificate = x509.load_der_x509_certificate(der)
    ca_id = keys.ca_id(keys.of_ca(certificate))
    issuer = Issuer(ca_id, certificate, (der, *parent.issuer.chain))
    return RemoteIssuingKey(issuer, client, key)

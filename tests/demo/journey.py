"""The story that the demo tells, step by step."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.demo import figures
from tests.demo.figures import Ledgers, Report
from tests.support.fleet import Fleet, Gateway
from tests.support.openssl import Verdict, Verifier
from tests.support.processes import ProcessError, wait_until
from tests.support.rest import Device, Line, Rest, connect, devices

_GATEWAY = "gw-01"
_DRAIN_S_MAX = 600.0
_STATUS_S_MAX = 60.0
_POLL_S = 0.25
_PROBLEMS_SHOWN = 5


class Journey:
    """One demo on one fleet."""

    def __init__(self, fleet: Fleet, folder: Path, console: Console) -> None:
        """Take the fleet (not started), where the results go, and where the story is told."""
        self._fleet = fleet
        self._folder = folder
        self._console = console

    def run(self, count: int) -> bool:
        """Tell the whole story with so many devices; gives whether all counts agree."""
        began = time.monotonic()
        with self._console.status("Founding central: CAs, keys, broker …"):
            self._fleet.start()
        self._console.print("Central and its broker run.")
        with self._console.status("A gateway is born: CA key in its token, join, first rules …"):
            gateway = self._fleet.add_gateway(_GATEWAY)
        self._console.print(f"Gateway {gateway.name} has joined; its CA key is in a PKCS#11 token.")
        figures.write(self._folder, "endpoints.json", endpoints(self._fleet))
        report = asyncio.run(self._story(gateway, count, began))
        figures.write(self._folder, "report.json", report)
        self._console.print(report.table())
        self._show_addresses(gateway)
        if not report.agrees:
            self._console.print("[red]The counts do not agree.[/]")
        return report.agrees

    async def _story(self, gateway: Gateway, count: int, began: float) -> Report:
        central = self._fleet.central
        async with (
            connect(central.web_url, central.admin_token, central.ca_bundle) as at_central,
            connect(gateway.web_url, gateway.station_token, central.ca_bundle) as at_gateway,
        ):
            line = Line(at_gateway)
            wishes = list(devices("device", count))
            await self._enroll(line, wishes[: count // 2], "Enrolling, the link is up")
            issued_online = len(await enrolled(at_gateway))
            await self._drain(at_gateway, at_central, "Central is told")
            central.cut_link()
            wait_until(lambda: not gateway.snapshot()["link"]["online"], what="the link is down")
            self._console.print("The link is cut: broker and central are unreachable.")
            await self._enroll(line, wishes[count // 2 :], "Enrolling, the link is cut")
            revoked = await self._revoke(at_gateway, at_central)
            central.restore_link()
            self._console.print("The link is restored.")
            await self._drain(at_gateway, at_central, "The backlog drains")
            verifier = Verifier(self._folder / "openssl", *await chain(at_central))
            await self._await_status(verifier, [line.received[sha256] for sha256 in revoked])
            verdicts = self._verify(verifier, list(line.received.values()))
            ledgers = Ledgers(
                await enrolled(at_gateway),
                await enrolled(at_central),
                await counted_too_often(at_central),
            )
        return figures.count(
            line.received.values(),
            ledgers,
            verdicts,
            issued_online=issued_online,
            seconds=time.monotonic() - began,
        )

    async def _enroll(self, line: Line, wishes: Sequence[Device], title: str) -> None:
        with self._progress(title, len(wishes)) as progress:
            await line.enroll(wishes, on_done=lambda: progress.advance(progress.task_ids[0]))

    async def _drain(self, at_gateway: Rest, at_central: Rest, title: str) -> None:
        """Wait until central has applied every certificate that the gateway has."""
        wanted = len(await enrolled(at_gateway))
        deadline = time.monotonic() + _DRAIN_S_MAX
        with self._progress(title, wanted) as progress:
            while (applied := len(await enrolled(at_central))) < wanted:
                progress.update(progress.task_ids[0], completed=applied)
                if time.monotonic() > deadline:
                    raise ProcessError(f"Central has only {applied} of {wanted} certificates.")
                await asyncio.sleep(_POLL_S)
            progress.update(progress.task_ids[0], completed=applied)

    async def _revoke(self, at_gateway: Rest, at_central: Rest) -> list[str]:
        """Revoke one certificate on each side while neither hears the other; gives SHA-256."""
        known = await enrolled(at_central)
        serials = {row["serial"] for row in known}
        unheard = [row for row in await enrolled(at_gateway) if row["serial"] not in serials]
        await at_gateway.revoke(unheard[0]["ca_id"], unheard[0]["serial"])
        await at_central.revoke(known[0]["ca_id"], known[0]["serial"])
        self._console.print("One certificate is revoked at the gateway, another one at central.")
        return [unheard[0]["sha256"], known[0]["sha256"]]

    async def _await_status(self, verifier: Verifier, revoked: Sequence[bytes]) -> None:
        """Wait until both are on every CRL and in every OCSP answer; what is not is counted."""
        deadline = time.monotonic() + _STATUS_S_MAX
        with self._console.status("Both revocations travel to the other side …"):
            while time.monotonic() < deadline:
                verdicts = await asyncio.to_thread(verifier.check, revoked)
                if all(verdict.revoked and not verdict.problems for verdict in verdicts):
                    return
                await asyncio.sleep(_POLL_S)

    def _verify(self, verifier: Verifier, ders: Sequence[bytes]) -> list[Verdict]:
        with self._progress("OpenSSL: chain, CRLs, OCSP", len(ders)) as progress:
            verdicts = verifier.check(ders, lambda: progress.advance(progress.task_ids[0]))
        problems = [verdict for verdict in verdicts if verdict.problems]
        for verdict in problems[:_PROBLEMS_SHOWN]:
            self._console.print(f"{verdict.serial}: {'; '.join(verdict.problems)}", markup=False)
        return verdicts

    def _show_addresses(self, gateway: Gateway) -> None:
        central = self._fleet.central
        self._console.print(f"Central:    {central.web_url}/  admin / {central.admin_password}")
        self._console.print(f"Gateway:    {gateway.web_url}/  (no login)")
        self._console.print(f"Everything else: {self._folder / 'endpoints.json'}")

    @contextmanager
    def _progress(self, title: str, total: int) -> Iterator[Progress]:
        columns = TextColumn(f"{title:28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=self._console) as progress:
            progress.add_task(title, total=total)
            yield progress


async def enrolled(rest: Rest) -> list[dict[str, Any]]:
    """Give what stations enrolled, by REST: not what gateway and central issued to themselves."""
    rows = await rest.certificates()
    return [row for row in rows if (row["principal"] or "").startswith("station:")]


async def counted_too_often(at_central: Rest) -> int:
    """Compare the counter that effects of events maintain with the certificates themselves."""
    rows = await at_central.certificates(origin=_GATEWAY)
    status = await at_central.get("/status")
    return status["data"]["attributes"]["issued"] - sum(row["state"] == "issued" for row in rows)


async def chain(at_central: Rest) -> tuple[str, str]:
    """Give root, and the CAs below it, in PEM."""
    authorities = await at_central.authorities()
    root = "".join(row["certificate"] for row in authorities if row["kind"] == "root")
    issuers = (row["certificate"] for row in authorities if row["kind"] in {"fleet", "gateway"})
    return root, "".join(issuers)


def endpoints(fleet: Fleet) -> dict[str, Any]:
    """Give addresses and logins of everything that runs."""
    central = fleet.central
    return {
        "central": {
            "web": central.web_url,
            "machines": central.machine_url,
            "status": central.status_url,
            "ca_bundle": central.ca_bundle,
            "admin": {"login": "admin", "password": central.admin_password},
            "api_token": central.admin_token,
        },
        "gateways": [
            {
                "name": gateway.name,
                "web": gateway.web_url,
                "machines": gateway.machine_url,
                "status": gateway.status_url,
                "ca_bundle": central.ca_bundle,
                "station_token": gateway.station_token,
            }
            for gateway in fleet.gateways
        ],
    }

"""What central says of replication is what its tables hold, also as Prometheus reads it."""

import asyncio

import httpx
from prometheus_client.parser import text_string_to_metric_families

from tests.support.fleet import Central
from tests.support.products import rows


def _lanes(api: httpx.Client, name: str, direction: str) -> dict[tuple[str, str], dict]:
    found = api.get("/api/v2.0/sync").json()["data"]
    return {
        (one["attributes"]["segment"], one["attributes"]["lane"]): one["attributes"]
        for one in found
        if (one["attributes"]["gateway"], one["attributes"]["direction"]) == (name, direction)
    }


def _metric(api: httpx.Client, name: str, **labels: str) -> float:
    answer = api.get("/metrics")
    assert answer.status_code == 200
    [value] = [
        sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name == name and sample.labels == labels
    ]
    return value


async def test_lanes_and_metrics_equal_the_tables(central: Central, newborn, api):
    puppet = await newborn()
    async with puppet.open(), puppet.online():
        await puppet.emit("certificate.issued", *(puppet.certificate(f"S-{n}") for n in range(7)))
        await puppet.drained()
        lanes = await asyncio.to_thread(_lanes, api, puppet.name, "up")
        cursors = rows(
            central.database,
            "SELECT segment, lane, applied, archived FROM cursor "
            "WHERE peer = ? AND direction = 'in'",
            puppet.name,
        )
        assert {
            (segment, ("urgent", "normal")[lane], applied, archived)
            for segment, lane, applied, archived in cursors
        } == {(*place, one["applied"], one["archived"]) for place, one in lanes.items()}
        assert all(one["waits"] == "" and one["head"] == one["applied"] for one in lanes.values())
        down = await asyncio.to_thread(_lanes, api, puppet.name, "dn")
        assert {one["waiting"] for one in down.values()} == {0}
        applied = sum(row[2] for row in cursors)
        name = puppet.name
        assert _metric(api, "tma_gateway_applied_events_total", gateway=name) == applied
        async with asyncio.timeout(30):  # what is noticed of links is written twice a second
            while _metric(api, "tma_gateway_online", gateway=name) != 1:  # noqa: ASYNC110
                await asyncio.sleep(0.2)


def test_metrics_are_not_for_everybody(central: Central, api):
    assert api.get("/metrics", headers={"Authorization": "Bearer none"}).status_code == 401
    token = central.command("station", "add", "only-enrolls").strip()
    assert api.get("/metrics", headers={"Authorization": f"Bearer {token}"}).status_code == 403
    assert (
        api.get("/api/v2.0/sync", headers={"Authorization": f"Bearer {token}"}).status_code == 403
    )


async def test_lanes_are_filtered_and_paged(central, newborn, api):
    first, second = await newborn(), await newborn()
    for puppet in (first, second):
        async with puppet.open(), puppet.online():
            await puppet.emit("certificate.issued", puppet.certificate("SN-lane"))
            await puppet.drained()
    place = "/api/v2.0/sync"
    mine = {"filter[gateway]": first.name, "filter[direction]": "up"}
    found = api.get(place, params=mine).json()["data"]
    assert {one["attributes"]["gateway"] for one in found} == {first.name}
    assert {one["attributes"]["lane"] for one in found} == {"urgent", "normal"}
    everything = [one["id"] for one in api.get(place).json()["data"]]
    paged: list[str] = []
    address = f"{place}?page[size]=3"
    while address:
        page = api.get(address).json()
        assert len(page["data"]) <= 3
        paged += [one["id"] for one in page["data"]]
        address = page["links"].get("next")
    assert paged == everything
    assert api.get(place, params={"filter[colour]": "red"}).status_code == 400
    only = central.command("user", "add", f"of-{first.name}", "--role", "operator",
                           "--scope", f"line={first.name}", "--no-login")  # fmt: skip
    assert only is not None
    token = central.command("token", "add", f"of-{first.name}", "one").strip().splitlines()[-1]
    seen = api.get(place, headers={"Authorization": f"Bearer {token}"}).json()["data"]
    assert {one["attributes"]["gateway"] for one in seen} == {first.name}

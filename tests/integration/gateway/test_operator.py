"""What operators do at the console is told to central in the transaction that does it."""

from pathlib import Path

from gateway.operator import report
from shared.store.access import Access
from tests.support.store_databases import ListSink, open_database


async def test_stations_made_and_ended_are_told_but_no_refused_token(tmp_path: Path):
    sink = ListSink()
    async with open_database(tmp_path / "gateway.db", sink=sink) as database:
        access = Access(database, report)
        await access.add_station(
            "press", role="station", profiles=["*"], token_hash=b"1" * 32, actor="user:eva"
        )
        await access.token_refused("token", "192.0.2.1")
        await access.revoke_station("press", "user:eva")
    told = [(event.actor, event.body["action"], event.body["subject"]) for _, event in sink.events]
    assert told == [
        ("user:eva", "station.added", "press"),
        ("user:eva", "station.revoked", "press"),
    ]
    assert sink.events[0][1].body["detail"]["profiles"] == '["*"]'

"""Routes of the technician page: the whole page, and the panel that replaces itself each 2 s."""

from collections.abc import Awaitable, Callable

from aiohttp import web

from gateway.snapshot import Snapshot, TokenState, local_text
from gateway.verdict import Level, verdict
from shared.kernel.clock import US_PER_SECOND, ClockQuality, datetime_of
from shared.web.auth import open_to_all
from shared.web.pages import Pages, age_text

_TOKEN_WORDS = {
    TokenState.READY: "In place, key proven",
    TokenState.STARTING: "Being checked",
    TokenState.ABSENT: "Not there",
    TokenState.FOREIGN: "Another token is plugged in",
    TokenState.LOCKED: "PIN not accepted",
}
_CLOCK_WORDS = {
    ClockQuality.NTP: "Confirmed by time servers",
    ClockQuality.SIGNED: "Not before the last time that central signed",
    ClockQuality.RTC: "Battery clock, not confirmed by a time server",
    ClockQuality.UNKNOWN: "In doubt: compare with a watch",
}

#: The words of the shared stylesheet.
_LEVELS = {Level.POSSIBLE: "good", Level.LIMITED: "warn", Level.STOPPED: "bad"}


def routes(pages: Pages, read: Callable[[], Awaitable[Snapshot]]) -> list[web.AbstractRouteDef]:
    """Give ``/`` and ``/panel``; ``read`` gives the present snapshot."""

    async def whole(_request: web.Request) -> web.Response:
        return pages.render("gateway.web/line.html", _context(await read()))

    async def panel(_request: web.Request) -> web.Response:
        return pages.render("gateway.web/panel.html", _context(await read()))

    why = "a technician at the line sees how it is without a login; nothing is done here"
    return [web.get("/", open_to_all(whole, why)), web.get("/panel", open_to_all(panel, why))]


def _context(snapshot: Snapshot) -> dict[str, object]:
    now_us = snapshot.clock.now_us
    oldest_us = snapshot.queue.oldest_us
    return {
        "snapshot": snapshot,
        "verdict": verdict(snapshot),
        "levels": _LEVELS,
        "local": local_text,
        "time_of_day": f"{datetime_of(now_us).astimezone():%H:%M:%S %Z}",
        "bytes": _bytes_text,
        "oldest_age": age_text((now_us - (oldest_us or now_us)) / US_PER_SECOND),
        "token_words": _TOKEN_WORDS,
        "clock_words": _CLOCK_WORDS,
        "authority_level": _authority_level(snapshot),
        "disk_level": _disk_level(snapshot),
    }


def _authority_level(snapshot: Snapshot) -> str:
    authority = snapshot.authority
    usable = authority.granted and not authority.ended and authority.remaining > 0
    in_period = snapshot.clock.now_us < authority.issue_until_us
    return "good" if usable and in_period else "bad"


def _disk_level(snapshot: Snapshot) -> str:
    disk = snapshot.disk
    if disk.free < disk.reserve:
        return "bad"
    return "warn" if disk.free < disk.warning else "good"


def _bytes_text(number: int) -> str:
    """Say bytes in GB or MB (powers of ten, as on the disk's label)."""
    gigabytes = number / 1e9
    return f"{gigabytes:,.1f} GB" if gigabytes >= 1 else f"{number / 1e6:,.0f} MB"

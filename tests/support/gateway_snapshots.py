"""Snapshots of a healthy gateway, to be changed in one place by a test."""

from gateway.snapshot import (
    AuthorityView,
    ClockView,
    DiskView,
    HistoryState,
    LineState,
    LinkView,
    QueueView,
    RecentView,
    Snapshot,
    TokenState,
    TokenView,
)
from shared.kernel.clock import ClockQuality

NOW_US = 1_795_450_000_000_000
DAY_US = 86_400_000_000

HEALTHY = Snapshot(
    gateway="gw-07",
    title="Hall 2, line 7",
    version="0.1.0",
    token=TokenView(TokenState.READY, "SoftHSM2, serial 0123456789abcdef"),
    link=LinkView(
        online=True,
        since_us=NOW_US - 3 * DAY_US,
        last_contact_us=NOW_US - 1_000_000,
        offline_until_us=NOW_US + 120 * DAY_US,
        offline_until_why="the grant's limit without contact",
    ),
    queue=QueueView(waiting=0, oldest_us=None, certificates_only_here=0),
    clock=ClockView(NOW_US, ClockQuality.NTP),
    authority=AuthorityView(
        name="Gateway CA gw-07",
        fingerprint="5f3a 91c2 08de 77b1 4c20 e5f9 6a13 d7c8",
        not_after_us=NOW_US + 3650 * DAY_US,
        issue_until_us=NOW_US + 365 * DAY_US,
        ended=False,
        granted=True,
        grant_ends_us=NOW_US + 365 * DAY_US,
        quota=100_000,
        used=12_345,
        crl_next_update_us=NOW_US + 180 * DAY_US,
    ),
    disk=DiskView(
        free=41_300_000_000, total=64_000_000_000, warning=1_024_000_000, reserve=128_000_000
    ),
    line=LineState.RUNNING,
    line_reason="",
    history=HistoryState.CONTINUOUS,
    recent=(
        RecentView(
            NOW_US - 60_000_000,
            "SN-0000013",
            "tls-server",
            "rest",
            ok=False,
            why="The grant allows serials SN-0000100 to SN-0000999 only.",
        ),
        *(
            RecentView(NOW_US - index * 7_000_000, f"SN-{index:07}", "tls-client", "rest", ok=True)
            for index in range(9)
        ),
    ),
)

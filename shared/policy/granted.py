"""What a grant lets a gateway do: for whom, where, when, and how long after the last contact.

Its quota is not judged here: the ledger spends it in the commit of the intent.
"""

from shared.kernel.clock import US_PER_SECOND
from shared.policy.case import Case, excerpt, moment
from shared.policy.conditions import station_of
from shared.policy.grant import Grant
from shared.policy.request import INTERNAL

#: How far the clock may stand before central's last contact without having been set back.
_CLOCK_TOLERANCE_US = 300 * US_PER_SECOND


def judge(case: Case) -> None:
    """Judge the grant, where one is needed."""
    grant = case.grant
    if grant is None:
        return
    if case.request.protocol != INTERNAL or case.request.gateway:
        _judge_reach(case, grant)
    now_us = case.circumstances.now.utc_us
    case.judge(
        grant.not_before_us <= now_us < grant.not_after_us,
        "grant.window",
        lambda: moment(now_us),
        lambda: (
            (
                f"The grant holds from {moment(grant.not_before_us)} until "
                f"{moment(grant.not_after_us)}, and it is {moment(now_us)}."
            ),
            "Check the clock, or ask central for a new grant.",
        ),
    )
    if grant.last_contact_max_s is not None:
        _judge_last_contact(case, grant.last_contact_max_s)


def _judge_reach(case: Case, grant: Grant) -> None:
    """Judge what, whom and where a grant is for. A box's own page is not what it is limited to."""
    profile, request = case.profile, case.request
    case.judge(
        profile.name in grant.profiles,
        "grant.profiles",
        profile.name,
        lambda: (
            f"This gateway's grant does not cover the profile {profile.name}.",
            "Ask central to add the profile to the grant.",
        ),
    )
    if grant.devices is not None:
        case.judge(
            (request.device or "") in grant.devices,
            "grant.devices",
            request.device,
            lambda: (
                f"The device {excerpt(request.device)} is not among those that the grant names.",
                "Check the device id, or ask central to extend the grant.",
            ),
        )
    if grant.stations is not None:
        station = station_of(request)
        case.judge(
            station in grant.stations,
            "grant.stations",
            station or request.principal,
            lambda: (
                f"The grant names other stations than {excerpt(station or request.principal)}.",
                "Use one of the stations of the grant, or ask central to extend it.",
            ),
        )


def _judge_last_contact(case: Case, max_s: int) -> None:
    """Central must have been heard of lately; a clock before that contact proves nothing."""
    now_us, last_us = case.circumstances.now.utc_us, case.circumstances.last_contact_us

    def last() -> str:
        return "none" if last_us is None else moment(last_us)

    case.judge(
        last_us is not None and -_CLOCK_TOLERANCE_US <= now_us - last_us <= max_s * US_PER_SECOND,
        "grant.last_contact",
        last,
        lambda: (
            (
                f"The grant holds for {max_s} s after the last contact with central; it is "
                f"{moment(now_us)}, and the last contact was: {last()}."
            ),
            "Restore the link to central, or check the clock.",
        ),
    )

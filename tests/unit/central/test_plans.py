"""What central certifies for itself and for gateways."""

from hypothesis import given
from hypothesis import strategies as st

from central.authority import plans
from shared.kernel.clock import US_PER_SECOND
from shared.pki import keys
from shared.pki.plan import NO_EXPIRY_US, AltNameKind

_SPKI = keys.spki(keys.generate().public_key())
_CLIENT, _SERVER = "1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1"
_times = st.integers(10**15, 4 * 10**15)


@given(_times)
def test_times_fall_on_whole_seconds_and_begin_in_the_past(now_us):
    for plan in (
        plans.authority("CA", "O", _SPKI, path_length=0, now_us=now_us),
        plans.gateway_transport("gw", _SPKI, now_us),
        plans.central_transport("_central", ("c.example",), _SPKI, now_us),
        plans.web_server(("c.example",), _SPKI, now_us),
        plans.responder("OCSP", _SPKI, now_us),
    ):
        assert plan.not_before_us % US_PER_SECOND == plan.not_after_us % US_PER_SECOND == 0
        assert plan.not_before_us <= now_us < plan.not_after_us


def test_who_may_serve_and_who_may_call():
    gateway = plans.gateway_transport("gw-1", _SPKI, 10**15)
    central = plans.central_transport("_central", ("c.example", "10.0.0.1"), _SPKI, 10**15)
    web = plans.web_server(("c.example",), _SPKI, 10**15)
    assert gateway.extended_key_usage == (_CLIENT,)
    assert central.extended_key_usage == (_SERVER, _CLIENT)
    assert web.extended_key_usage == (_SERVER,)
    assert [name.kind for name in central.alt_names] == [AltNameKind.DNS, AltNameKind.IP]


def test_cas_do_not_expire():
    plan = plans.authority("CA", "O", _SPKI, path_length=1, now_us=10**15)
    assert (plan.not_after_us, plan.ca_path_length) == (NO_EXPIRY_US, 1)

"""The wire format of joining: one value, one encoding, and nothing else is read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.kernel.errors import BadRequestError
from shared.sync.join import JoinAnswer, JoinRequest, JoinToken

_names = st.from_regex(r"[a-z0-9-]{1,64}", fullmatch=True)
_digests = st.binary(min_size=32, max_size=32)
_tokens = st.builds(
    JoinToken,
    name=_names,
    address=st.text(min_size=1, max_size=64),
    secret=st.binary(min_size=16, max_size=16),
    transport_root_hash=_digests,
    directive_key_hash=_digests,
)
_csrs = st.binary(min_size=1, max_size=64)
_requests = st.builds(
    JoinRequest,
    name=_names,
    secret=st.binary(min_size=16, max_size=16),
    software=st.text(min_size=1, max_size=20),
    transport_csr=_csrs,
    event_csr=_csrs,
    exchange_csr=_csrs,
    authority_csr=_csrs,
)


@given(_tokens, st.sampled_from(["", " ", "\n", "\r\n"]))
def test_token_survives_being_carried(token, around):
    text = token.text()
    assert "\n" not in text
    assert JoinToken.parse(around + text + around) == token


@given(_tokens, st.data())
def test_damaged_token_is_never_read_as_another(token, data):
    text = token.text()
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.characters(codec="ascii")) + text[at + 1 :]
    try:
        assert JoinToken.parse(changed) == token
    except BadRequestError:
        assert changed.strip() != text


@given(_requests)
def test_request_reads_back(request_):
    assert JoinRequest.decode(request_.encode()) == request_


@given(st.binary(max_size=200))
def test_noise_is_refused(noise):
    for message in (JoinRequest, JoinAnswer, JoinToken):
        with pytest.raises(BadRequestError):
            message.decode(noise)


@pytest.mark.parametrize("name", ["", "_central", "gw/1", "GW", "a" * 65, "gw+", "gw#", "gw\n"])
def test_no_gateway_bears_a_name_that_means_something_else(name):
    with pytest.raises(ValueError, match="name"):
        JoinToken(
            name=name,
            address="c:1",
            secret=bytes(16),
            transport_root_hash=bytes(32),
            directive_key_hash=bytes(32),
        )

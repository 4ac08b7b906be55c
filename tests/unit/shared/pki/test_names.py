"""Names: what text they may hold, and that what is written reads back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.kernel.errors import BadRequestError
from shared.pki import names
from shared.pki.plan import AltName, AltNameKind, NameAttribute

COMMON_NAME = names.BY_NAME["common_name"]


@pytest.mark.parametrize(
    "value",
    [
        "",
        " a",
        "a ",
        "a\x00b",
        "a\nb",
        "a\x7fb",
        "a\u0085b",
        "a\u200fb",
        "a\u202eb",
        "a\u2066b",
        "a\u200bb",
        "a\u00a0b",
        "a\ufeffb",
        "a\u2028b",
        "a\ud800b",
        "a\ue000b",
        "a\uffffb",
        "x" * 65,
        "ä" * 33,
    ],
)
def test_text_that_people_cannot_read_or_compare_is_refused(value):
    assert names.attribute_problem(COMMON_NAME, value)
    with pytest.raises(BadRequestError):
        names.encode_name((NameAttribute(names.COMMON_NAME, value),))


@pytest.mark.parametrize("value", ["Gerät 7", "x" * 64, "ä" * 32, "設備", "a  b", "a/b:c@d"])
def test_ordinary_text_is_allowed(value):
    assert names.attribute_problem(COMMON_NAME, value) is None


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("serial_number", "SN-1 (a)/b", True),
        ("serial_number", "SN_1", False),
        ("serial_number", "Ä1", False),
        ("country_name", "DE", True),
        ("country_name", "de", False),
        ("country_name", "DEU", False),
        ("domain_component", "example", True),
        ("domain_component", "exämple", False),
        ("email_address", "a@b.example", True),
    ],
)
def test_each_attribute_has_its_alphabet(name, value, allowed):
    assert (names.attribute_problem(names.BY_NAME[name], value) is None) is allowed


@given(
    st.lists(
        st.builds(
            NameAttribute, st.sampled_from(sorted(names.BY_OID)), st.text(min_size=1, max_size=20)
        ),
        max_size=5,
    ).map(tuple)
)
def test_a_name_that_is_allowed_reads_back(attributes):
    problems = [names.attribute_problem(names.BY_OID[item.oid], item.value) for item in attributes]
    if any(problems):
        with pytest.raises(BadRequestError):
            names.encode_name(attributes)
    else:
        assert names.decode_name(names.encode_name(attributes)) == attributes


def test_an_unknown_attribute_is_refused():
    with pytest.raises(BadRequestError, match=r"2\.5\.4\.99"):
        names.encode_name((NameAttribute("2.5.4.99", "x"),))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (AltNameKind.DNS, "a.example"),
        (AltNameKind.DNS, "host"),
        (AltNameKind.DNS, "xn--gert-0qa.example"),
        (AltNameKind.IP, "192.0.2.1"),
        (AltNameKind.IP, "2001:db8::1"),
        (AltNameKind.URI, "urn:plant:line-1:opcua"),
        (AltNameKind.URI, "https://[::1]:8443/a?b#c"),
        (AltNameKind.EMAIL, "line+1@plant.example"),
        (AltNameKind.HARDWARE_MODULE, "1.3.6.1.4.1.99999.1:SN:0001"),
        (AltNameKind.HARDWARE_MODULE, "2.99999999.0:~"),
    ],
)
def test_an_alternative_name_that_is_allowed_reads_back(kind, value):
    alt_name = AltName(kind, value)
    assert names.decode_alt_name(names.encode_alt_name(alt_name)) == alt_name


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (AltNameKind.DNS, "a..b"),
        (AltNameKind.DNS, "-a"),
        (AltNameKind.DNS, "a_b"),
        (AltNameKind.DNS, "a.example."),
        (AltNameKind.DNS, "a.example\n"),
        (AltNameKind.DNS, "*.example"),
        (AltNameKind.DNS, "ä.example"),
        (AltNameKind.DNS, "a." * 127 + "bc"),
        (AltNameKind.IP, "192.0.2.1/24"),
        (AltNameKind.IP, "192.0.2.01"),
        (AltNameKind.IP, "fe80::1%eth0"),
        (AltNameKind.IP, ""),
        (AltNameKind.URI, "no scheme"),
        (AltNameKind.URI, "http://a b"),
        (AltNameKind.URI, "http://ä"),
        (AltNameKind.URI, "x:" + "a" * 2048),
        (AltNameKind.EMAIL, "a@b"),
        (AltNameKind.EMAIL, "A <a@b.example>"),
        (AltNameKind.HARDWARE_MODULE, "1.40.1:x"),
        (AltNameKind.HARDWARE_MODULE, "3.1:x"),
        (AltNameKind.HARDWARE_MODULE, "1.3.6.1:"),
        (AltNameKind.HARDWARE_MODULE, "1.3." + "9" * 9 + ":x"),
    ],
)
def test_an_alternative_name_that_does_not_fit_is_refused(kind, value):
    assert names.alt_name_problem(AltName(kind, value))
    with pytest.raises(BadRequestError):
        names.encode_alt_name(AltName(kind, value))

"""Names: what text they may hold, and that what is written reads back."""

import pytest
from cryptography import x509
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
        (AltNameKind.DNS_WILDCARD, "*.line-1.example"),
        (AltNameKind.DIRECTORY, "CN=device\\, the first,O=Gerät GmbH,C=DE"),
        (AltNameKind.DIRECTORY, "CN=device+2.5.4.5=SN-1,DC=plant,DC=example"),
        (AltNameKind.REGISTERED_ID, "1.3.6.1.4.1.99999.7"),
        (AltNameKind.UPN, "müller@plant.example"),
        (AltNameKind.PERMANENT_IDENTIFIER, "1.3.6.1.4.1.99999.1:SN: 0001"),
        (AltNameKind.PERMANENT_IDENTIFIER, ":SN-0001"),
        (AltNameKind.SMTP_UTF8_MAILBOX, "müller@plant.example"),
        (AltNameKind.OTHER, "1.3.6.1.4.1.99999.2;UTF8:Gerät 7"),
        (AltNameKind.OTHER, "1.3.6.1.4.1.99999.2;IA5:device 7"),
        (AltNameKind.OTHER, "1.3.6.1.4.1.99999.2;DER:3000"),
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
        (AltNameKind.DNS, "xn--a.example"),
        (AltNameKind.DNS, "xn--abc-.example"),
        (AltNameKind.DNS_WILDCARD, "*.example"),
        (AltNameKind.DNS_WILDCARD, "a.*.example"),
        (AltNameKind.DNS_WILDCARD, "*.*.example"),
        (AltNameKind.DNS_WILDCARD, "*a.line.example"),
        (AltNameKind.DNS_WILDCARD, "a.line.example"),
        (AltNameKind.DIRECTORY, ""),
        (AltNameKind.DIRECTORY, "device"),
        (AltNameKind.DIRECTORY, "CN=" + "x" * 65),
        (AltNameKind.DIRECTORY, "CN=a\u202eb"),
        (AltNameKind.DIRECTORY, "2.5.4.99=x"),
        (AltNameKind.DIRECTORY, ",".join(["OU=x"] * 17)),
        (AltNameKind.REGISTERED_ID, "1.40.1"),
        (AltNameKind.REGISTERED_ID, "1.2.3 "),
        (AltNameKind.UPN, "user"),
        (AltNameKind.UPN, "a@b@c.example"),
        (AltNameKind.UPN, "a\x00b@c.example"),
        (AltNameKind.UPN, "a\u202eb@c.example"),
        (AltNameKind.PERMANENT_IDENTIFIER, "1.2.3:"),
        (AltNameKind.PERMANENT_IDENTIFIER, "no colon"),
        (AltNameKind.PERMANENT_IDENTIFIER, "1.2.3:" + "x" * 129),
        (AltNameKind.SMTP_UTF8_MAILBOX, "ascii@plant.example"),
        (AltNameKind.SMTP_UTF8_MAILBOX, "müller@"),
        (AltNameKind.OTHER, "1.3.6.1.4.1.311.20.2.3;UTF8:user@domain"),
        (AltNameKind.OTHER, "1.2.3.4;UTF8:"),
        (AltNameKind.OTHER, "1.2.3.4;UTF8:a\nb"),
        (AltNameKind.OTHER, "1.2.3.4;IA5:ä"),
        (AltNameKind.OTHER, "1.2.3.4;DER:30"),
        (AltNameKind.OTHER, "1.2.3.4;DER:3001"),
        (AltNameKind.OTHER, "1.2.3.4;DER:300000"),
        (AltNameKind.OTHER, "1.2.3.4;HEX:3000"),
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


@given(st.sampled_from(AltNameKind), st.text(min_size=1, max_size=60))
def test_any_alternative_name_is_refused_or_reads_back(kind, value):
    alt_name = AltName(kind, value)
    if names.alt_name_problem(alt_name):
        with pytest.raises(BadRequestError):
            names.encode_alt_name(alt_name)
    else:
        again = names.decode_alt_name(names.encode_alt_name(alt_name))
        assert names.encode_alt_name(again) == names.encode_alt_name(alt_name)


OIDS = st.from_regex(rf"(?:{names.OID_PATTERN})", fullmatch=True)


@given(OIDS, st.binary(max_size=80))
def test_any_other_name_is_read_or_refused(oid, value):
    name = x509.OtherName(x509.ObjectIdentifier(oid), value)
    try:
        alt_name = names.decode_alt_name(name)
    except BadRequestError as error:
        assert error.message.endswith(".")
        return
    if names.alt_name_problem(alt_name) is None:
        assert names.encode_alt_name(alt_name) == name


def test_the_order_and_groups_of_a_name_are_read_as_they_stand():
    both = x509.RelativeDistinguishedName(
        [
            x509.NameAttribute(x509.NameOID.COMMON_NAME, "a"),
            x509.NameAttribute(x509.NameOID.SERIAL_NUMBER, "1"),
        ]
    )
    unit = x509.RelativeDistinguishedName(
        [x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, "u")]
    )
    read = names.decode_name(x509.Name([unit, both, unit]))
    assert [attribute.value for attribute in read] in (["u", "a", "1", "u"], ["u", "1", "a", "u"])

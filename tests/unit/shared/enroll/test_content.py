"""From attributes to the wish that the issuance core decides on."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from shared.enroll.rest.content import enrollment, signing_request
from shared.enroll.rest.models import EnrollAttributes, SubjectAttributes
from shared.kernel.errors import BadRequestError
from shared.pki import keys, names
from shared.pki.plan import AltNameKind
from tests.support.pki_hierarchy import csr

CSR = csr(
    keys.generate(),
    x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "from-csr.example")]),
    encoding=Encoding.PEM,
).decode()
_TEXTS = st.text(min_size=1, max_size=64)
_SUBJECTS = st.dictionaries(st.sampled_from(sorted(SubjectAttributes.model_fields)), _TEXTS)
_ALT_NAMES = st.dictionaries(
    st.sampled_from([kind.value for kind in AltNameKind]), st.lists(_TEXTS, max_size=3)
)


@given(subject=_SUBJECTS, with_csr=st.booleans())
def test_a_given_subject_stands_alone(subject: dict[str, str], with_csr: bool):
    attributes = EnrollAttributes(
        profile="x", csr=CSR if with_csr else None, subject=SubjectAttributes(**subject)
    )
    wish = enrollment(attributes, "x", signing_request(attributes))
    said = {names.BY_OID[attribute.oid].name: attribute.value for attribute in wish.subject}
    fallback = {"common_name": "from-csr.example"} if with_csr else {}
    assert said == (subject or fallback)


@given(alt_names=_ALT_NAMES)
def test_given_names_stand_alone(alt_names: dict[str, list[str]]):
    attributes = EnrollAttributes.model_validate({"profile": "x", "alt_names": alt_names})
    wish = enrollment(attributes, "x", None)
    assert [(name.kind.value, name.value) for name in wish.alt_names] == [
        (kind.value, value) for kind in AltNameKind for value in alt_names.get(kind.value, [])
    ]


@given(text=st.text(max_size=300))
def test_no_text_is_a_csr_by_accident(text: str):
    attributes = EnrollAttributes(profile="x", csr=text)
    with pytest.raises(BadRequestError) as refused:
        signing_request(attributes)
    assert refused.value.pointer == "/data/attributes/csr"

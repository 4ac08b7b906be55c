"""pkilint on everything that is issued: no finding, or a written reason why it is tolerated.

All findings count, notices included. pkilint is slow (it decodes in Python): lint one of a kind.
"""

import re
from functools import cache

from pkilint import loader, pkix
from pkilint.pkix import certificate, crl, extension, name, ocsp
from pkilint.validation import ValidatorContainer

#: Finding and its message → why it is tolerated.
TOLERATED = {
    "INFO pkix.subject_key_identifier_rfc7093_method_1_identified: ": (
        "says how the identifier was made: the way that design.md §12 chose"
    ),
    "INFO pkix.subject_key_identifier_method_1_identified: ": "the same of RFC 5280's method 1",
    r'ERROR pkix.invalid_domain_name_syntax: Invalid domain name syntax: "[A-Za-z0-9-]+"': (
        "RFC 1034 §3.5 allows a host name of one label, and plants use them"
    ),
    r'ERROR pkix.invalid_uri_syntax: Invalid URI syntax: "urn:[!-~]+"': (
        "OPC UA application URIs are URNs (OPC 10000-6 §6.2.2); pkilint knows only URLs"
    ),
    "NOTICE pkix.aki_absent_self_issued_and_unsupported_algorithm: "
    "Self-issued CA certificate uses unsupported public key algorithm: 1.2.840.10045.2.1": (
        "pkilint cannot verify roots on Brainpool and secp256k1; OpenSSL's -check_ss_sig does"
    ),
}


def assert_clean_certificate(der: bytes) -> None:
    """Lint one DER certificate against RFC 5280."""
    document = loader.RFC5280CertificateDocumentLoader().load_der_document(der)
    _assert_clean(_certificate_linter(), document)


def assert_clean_crl(der: bytes) -> None:
    """Lint one DER CRL against RFC 5280."""
    document = loader.RFC5280CertificateListDocumentLoader().load_der_document(der)
    _assert_clean(_crl_linter(), document)


def assert_clean_ocsp(der: bytes) -> None:
    """Lint one DER OCSPResponse against RFC 6960."""
    document = loader.RFC6960OCSPResponseDocumentLoader().load_der_document(der)
    _assert_clean(_ocsp_linter(), document)


def _assert_clean(linter: ValidatorContainer, document) -> None:
    findings = [
        f"{finding.finding.severity.name} {finding.finding.code}: {finding.message or ''}"
        for result in linter.validate(document.root)
        for finding in result.finding_descriptions
    ]
    blamed = [text for text in findings if not any(re.fullmatch(t, text) for t in TOLERATED)]
    assert not blamed, "\n".join(blamed)


@cache
def _certificate_linter() -> ValidatorContainer:
    return certificate.create_pkix_certificate_validator_container(
        certificate.create_decoding_validators(
            name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS
        ),
        [
            certificate.create_issuer_validator_container([]),
            certificate.create_validity_validator_container(),
            certificate.create_subject_validator_container([]),
            certificate.create_extensions_validator_container([]),
            certificate.create_spki_validator_container([]),
        ],
    )


@cache
def _crl_linter() -> ValidatorContainer:
    return crl.create_pkix_crl_validator_container(
        [
            pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
            pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
        ],
        [
            crl.create_issuer_validator_container([]),
            crl.create_validity_validator_container([]),
            crl.create_extensions_validator_container([]),
        ],
    )


@cache
def _ocsp_linter() -> ValidatorContainer:
    return ocsp.create_pkix_ocsp_response_validator_container(
        [
            ocsp.create_response_decoder(),
            pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
            pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
        ],
        [],
    )

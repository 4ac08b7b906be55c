"""``simplereenroll``: the same names under a new or the same key (RFC 7030 §4.2.2)."""

from cryptography import x509

from shared.enroll.est import renaming
from shared.enroll.rest.ports import CertificateRow
from shared.kernel.clock import US_PER_SECOND
from shared.kernel.errors import BadRequestError, ConflictError, ForbiddenError
from shared.pki import names
from shared.pki.plan import AltName, NameAttribute
from shared.pki.request import CertificationRequest
from shared.policy.access import Alias

_DAY_US = 24 * 3600 * US_PER_SECOND
Names = tuple[tuple[NameAttribute, ...], tuple[AltName, ...]]


def require_renewable(row: CertificateRow, alias: Alias, now_us: int) -> bytes:
    """Give the DER of the certificate that this alias may renew now.

    Raises ForbiddenError, ConflictError.
    """
    if not alias.renewal:
        raise ForbiddenError(f"The alias {alias.name} renews nothing.")
    if row.profile != alias.profile:
        raise ForbiddenError(
            f"The certificate is of the profile {row.profile}, the alias {alias.name} "
            f"issues for {alias.profile}."
        )
    if row.der is None or row.status != "good":
        raise ConflictError("Only a good certificate can be renewed.")
    window = alias.renewal_window_days
    if window is not None and now_us < (row.not_after_us or 0) - window * _DAY_US:
        raise ForbiddenError(
            f"This certificate may be renewed in its last {window} days only.",
            remedy="Renew it later.",
        )
    return row.der


def wanted_names(current: bytes, csr: CertificationRequest, raw: bytes, alias: Alias) -> Names:
    """Give subject and alternative names of the successor; raises BadRequestError, ForbiddenError.

    The request says what the certificate says; without alternative names it asks for those that it
    has. New names come in the attribute ChangeSubjectName (RFC 6402 §2.8) alone.
    """
    certificate = x509.load_der_x509_certificate(current)
    subject = names.decode_name(certificate.subject)
    alt_names = _alt_names(certificate)
    if csr.subject != subject or (csr.alt_names and set(csr.alt_names) != set(alt_names)):
        raise BadRequestError(
            "Subject and alternative names must be those of the certificate that is renewed.",
            remedy="Copy them from the certificate; new names go into ChangeSubjectName.",
        )
    change = renaming.change_subject_name(raw)
    if change is None:
        return subject, alt_names
    if not alias.change_subject:
        raise ForbiddenError(f"The alias {alias.name} changes no names.")
    new_subject, new_alt_names = change
    return new_subject or subject, alt_names if new_alt_names is None else new_alt_names


def _alt_names(certificate: x509.Certificate) -> tuple[AltName, ...]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return ()
    return tuple(map(names.decode_alt_name, extension.value))

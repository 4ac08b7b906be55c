"""Chains: whether a certificate leads to a root that is trusted (RFC 5280 §6)."""

from collections.abc import Iterable

from cryptography import x509
from cryptography.x509.verification import (
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from shared.kernel.clock import datetime_of
from shared.kernel.errors import UntrustedError

_INTERMEDIATES_MAX = 4
#: CAs by the rules of the web (CA:TRUE, keyCertSign, path length); the purpose of the leaf is for
#: its reader to judge.
_CA_POLICY = ExtensionPolicy.webpki_defaults_ca()
_LEAF_POLICY = ExtensionPolicy.permit_all()


def verify(
    leaf: bytes, intermediates: Iterable[bytes], roots: Iterable[bytes], now_us: int
) -> list[x509.Certificate]:
    """Build and verify a path at ``now_us`` (UTC µs); all certificates come in DER.

    Gives the path from leaf to root. Raises UntrustedError when there is none. Revocation is not
    looked at, nor what the leaf may be used for.
    """
    try:
        verifier = (
            PolicyBuilder()
            .store(Store([x509.load_der_x509_certificate(root) for root in roots]))
            .time(datetime_of(now_us))
            .max_chain_depth(_INTERMEDIATES_MAX)
            .extension_policies(ca_policy=_CA_POLICY, ee_policy=_LEAF_POLICY)
            .build_client_verifier()
        )
        known = [x509.load_der_x509_certificate(der) for der in intermediates]
        return verifier.verify(x509.load_der_x509_certificate(leaf), known).chain
    except VerificationError as error:
        raise UntrustedError("The certificate does not lead to a trusted root.") from error
    except ValueError as error:
        raise UntrustedError("A certificate of the chain is malformed.") from error

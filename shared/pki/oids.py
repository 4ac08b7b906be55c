"""Object identifiers that cryptography does not name, and our own."""

from cryptography.x509 import ObjectIdentifier

#: hardwareModuleName, an otherName for IDevIDs (RFC 4108 §5, IEEE 802.1AR).
HARDWARE_MODULE_NAME = ObjectIdentifier("1.3.6.1.5.5.7.8.4")
#: permanentIdentifier, an otherName (RFC 4043 §2).
PERMANENT_IDENTIFIER = ObjectIdentifier("1.3.6.1.5.5.7.8.3")
#: SmtpUTF8Mailbox, an otherName (RFC 9598 §3).
SMTP_UTF8_MAILBOX = ObjectIdentifier("1.3.6.1.5.5.7.8.9")
#: User principal name, an otherName of Microsoft's smart-card logon.
USER_PRINCIPAL_NAME = ObjectIdentifier("1.3.6.1.4.1.311.20.2.3")
SHA1 = ObjectIdentifier("1.3.14.3.2.26")
SHA256 = ObjectIdentifier("2.16.840.1.101.3.4.2.1")
OCSP_BASIC = ObjectIdentifier("1.3.6.1.5.5.7.48.1.1")
OCSP_NONCE = ObjectIdentifier("1.3.6.1.5.5.7.48.1.2")
#: How far back an answer about an expired certificate reaches (RFC 6960 §4.4.4).
OCSP_ARCHIVE_CUTOFF = ObjectIdentifier("1.3.6.1.5.5.7.48.1.6")
#: The responder calls serials that were never issued revoked (RFC 6960 §4.4.8).
OCSP_EXTENDED_REVOKE = ObjectIdentifier("1.3.6.1.5.5.7.48.1.9")
#: Private CRL extension: the heads of the issuer's event chain, a DER OCTET STRING. The arc 2.25
#: needs no registration; the number below it is the first 28 bits of a random UUID, because Go's
#: decoder (31 bits) and pkilint's (28 bits) refuse a whole document for a larger arc.
CHAIN_HEADS = ObjectIdentifier("2.25.188747810")

"""The list of key types begins and ends here; it needs no cryptography, so command lines use it."""

from enum import StrEnum


class KeyType(StrEnum):
    """Key types that may be certified and that may issue."""

    EC_P256 = "ec-p256"
    EC_P384 = "ec-p384"
    EC_P521 = "ec-p521"
    EC_BRAINPOOL_P256 = "ec-brainpool-p256r1"
    EC_BRAINPOOL_P384 = "ec-brainpool-p384r1"
    EC_BRAINPOOL_P512 = "ec-brainpool-p512r1"
    EC_SECP256K1 = "ec-secp256k1"
    ED25519 = "ed25519"
    ED448 = "ed448"
    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"
    RSA_8192 = "rsa-8192"
    #: Of any other length from 2048 to 8192 bits in steps of 8; only certified, never made here.
    RSA_OTHER = "rsa-other"
    ML_DSA_44 = "ml-dsa-44"
    ML_DSA_65 = "ml-dsa-65"
    ML_DSA_87 = "ml-dsa-87"

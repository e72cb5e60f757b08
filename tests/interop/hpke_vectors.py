#!/usr/bin/env python3
"""Seals with PyPI `cryptography`: HPKE Base mode, DHKEM(P-384, HKDF-SHA384), HKDF-SHA384, AES-256-GCM.

Usage: hpke_vectors.py > tests/data/hpke/python-cryptography.json

Needs `cryptography` 50 or later. Keys are fresh, so every run makes other vectors; the committed ones are frozen.
"""
import json
import os

import cryptography
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

# Lengths of plaintext, info and associated data.
SHAPES = [(0, 0, 0), (32, 0, 0), (32, 98, 0), (32, 98, 7), (1, 1, 1), (15, 64, 0), (16, 127, 16), (17, 128, 33), (48, 129, 64),
          (255, 255, 0), (1024, 3, 300), (0, 98, 12)]


def main():
    suite = Suite(KEM.P384, KDF.HKDF_SHA384, AEAD.AES_256_GCM)
    vectors = []
    for plain, info, aad in SHAPES:
        plain, info, aad = os.urandom(plain), os.urandom(info), os.urandom(aad)
        private = ec.generate_private_key(ec.SECP384R1())
        public = private.public_key()
        # The public Suite.encrypt takes no associated data; this is what it calls.
        sealed = openssl.hpke._encrypt_with_aad(suite, plain, public, info, aad)
        if not aad:
            assert suite.decrypt(sealed, private, info) == plain
        length = KEM.P384.enc_length()
        vectors.append({
            "aad": aad.hex(),
            "ct": sealed[length:].hex(),
            "enc": sealed[:length].hex(),
            "info": info.hex(),
            "pkR": public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint).hex(),
            "pt": plain.hex(),
            "skR": format(private.private_numbers().private_value, "096x"),
        })
    made_by = f"PyPI cryptography {cryptography.__version__}"
    print(json.dumps({"aead_id": 2, "kdf_id": 2, "kem_id": 17, "made_by": made_by, "mode": 0, "vectors": vectors}, indent=1))


main()

#!/usr/bin/env python3
"""Makes an authority and certificates of servers, good and bad ones, with PyPI `cryptography`.

Usage: tls_certificates.py FOLDER

Writes ca.pem, and for each of good, other_name, expired, not_yet, other_authority a NAME.pem and NAME.key.
"""
import datetime
import pathlib
import sys

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)


def certificate(name, key, issuer, issuer_key, begin, end, is_authority):
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = x509.CertificateBuilder(
        issuer_name=issuer or subject,
        subject_name=subject,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=begin,
        not_valid_after=end,
    ).add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
    if not is_authority:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def authority(name):
    key = ec.generate_private_key(ec.SECP256R1())
    return key, certificate(name, key, None, key, NOW - 30 * DAY, NOW + 30 * DAY, True)


def main():
    folder = pathlib.Path(sys.argv[1])
    key, root = authority("authority of the tests")
    other_key, other_root = authority("another authority")
    (folder / "ca.pem").write_bytes(root.public_bytes(serialization.Encoding.PEM))
    for file, name, begin, end, issuer, issuer_key in [
        ("good", "localhost", NOW - DAY, NOW + DAY, root, key),
        ("other_name", "store.example.org", NOW - DAY, NOW + DAY, root, key),
        ("expired", "localhost", NOW - 3 * DAY, NOW - DAY, root, key),
        ("not_yet", "localhost", NOW + DAY, NOW + 3 * DAY, root, key),
        ("other_authority", "localhost", NOW - DAY, NOW + DAY, other_root, other_key),
    ]:
        server_key = ec.generate_private_key(ec.SECP256R1())
        made = certificate(name, server_key, issuer.subject, issuer_key, begin, end, False)
        (folder / f"{file}.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
        (folder / f"{file}.key").write_bytes(
            server_key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )


main()

#!/usr/bin/env python3
"""Seals a folder with public libraries only, from docs/package-format.md.

Usage: package_writer.py SOURCE_FOLDER PACKAGE_FOLDER SENDER_PRIVATE_PEM PASSPHRASE RECIPIENT_PUBLIC_PEM

Writes one pack. Needs PyPI `cryptography` 50 or later. Shares helpers with package_reader.py and no line with the library under test.
"""
import base64
import hashlib
import json
import os
import pathlib
import sys

from cryptography.cobblestone import Cobblestone256Encryptor
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from package_reader import leaf_hashes, pem_blocks, root, spki_digest


def spell(value):
    """The one spelling of a JSON value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def padme(length):
    """Padmé (PoPETs 2019/4)."""
    if length < 2:
        return length
    exponent = length.bit_length() - 1
    unit = 1 << max(0, exponent - exponent.bit_length())
    return -(-length // unit) * unit


def main():
    source, target, private, passphrase, recipient = sys.argv[1:]
    target = pathlib.Path(target)
    key, package = os.urandom(32), os.urandom(16)

    def seal(plain, role, ending):
        """Seals and writes an object: its entry in the header, and its leaf hashes."""
        name = os.urandom(16)
        object_key = HKDFExpand(hashes.SHA512(), 32, b"smp-package/v1 obj\0" + package + name).derive(key)
        encryptor = Cobblestone256Encryptor(object_key, b"smp-package/v1\0" + bytes([role]) + package + name)
        sealed = encryptor.update(plain) + encryptor.finalize()
        (target / (name.hex() + ending)).write_bytes(sealed)
        leaves = leaf_hashes(sealed)
        return {"mth": base64.b64encode(root(leaves)).decode(), "name": name.hex(), "size": len(sealed)}, leaves

    pack, lines = b"", []
    for path in sorted(path for path in pathlib.Path(source).rglob("*") if path.is_file()):
        contents, digest = path.read_bytes(), hashlib.sha256(path.read_bytes()).hexdigest()
        entry = {"offset": len(pack), "pack": 0, "path": path.relative_to(source).as_posix(), "sha256": digest, "size": len(contents)}
        lines.append(spell(entry))
        pack += contents
    pack_entry, leaves = seal(pack.ljust(padme(len(pack)), b"\0"), 1, ".smpp")
    head = {"files": len(lines), "leaves": {"0": [base64.b64encode(leaf).decode() for leaf in leaves]}, "v": 1}
    manifest = "".join(line + "\n" for line in [spell(head), *lines]).encode()
    manifest_entry, _ = seal(manifest.ljust(-(-len(manifest) // 65_536) * 65_536, b"\n"), 0, ".smpm")

    _, sign = pem_blocks(pathlib.Path(private).read_text(), "ENCRYPTED PRIVATE KEY")
    sign = serialization.load_pem_private_key(sign, passphrase.encode())
    agree = serialization.load_pem_public_key(pem_blocks(pathlib.Path(recipient).read_text(), "PUBLIC KEY")[0])
    sender, kid = spki_digest(sign.public_key()), spki_digest(agree)
    suite = Suite(KEM.P384, KDF.HKDF_SHA384, AEAD.AES_256_GCM)
    wrapped = suite.encrypt(key, agree, b"smp-package/v1 pk\0" + package + sender + kid)
    entry = {"ct": base64.b64encode(wrapped[97:]).decode(), "enc": base64.b64encode(wrapped[:97]).decode(), "kid": kid.hex()}
    header = {
        "created": "2024-02-29T12:00:00Z", "manifest": manifest_entry, "packs": [pack_entry], "pkg": package.hex(),
        "purpose": "written by python", "recipients": [entry], "sender": sender.hex(), "v": 1,
    }
    message = f"smp-package/v1\n{spell(header)}\n"
    signature = sign.sign(message.encode(), ec.ECDSA(hashes.SHA384()))
    (target / "header.smp").write_text(message + base64.b64encode(signature).decode() + "\n")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Opens and makes sealed study packages with public libraries only, written from docs/package-format.md.

  smp_package.py open PACKAGE RECIPIENT_KEY PASSPHRASE SENDER_PUBLIC    prints package, purpose and the SHA-256 of every file, as JSON
  smp_package.py seal FOLDER PACKAGE SENDER_KEY PASSPHRASE RECIPIENT_PUBLIC

Needs PyPI `cryptography` 50 or later, which brings an HPKE and a Cobblestone of its own: nothing is shared with the library under test.
"""
import base64
import hashlib
import json
import os
import pathlib
import sys
import unicodedata

from cryptography.cobblestone import Cobblestone256Decryptor, Cobblestone256Encryptor
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

RANGE = 512 * 16_400  # sealed bytes of a full range; range 0 holds the 56-byte prefix besides
SUITE = Suite(KEM.P384, KDF.HKDF_SHA384, AEAD.AES_256_GCM)
ENDINGS = (".smpm", ".smpp")  # by role: manifest, pack
b64 = lambda raw: base64.b64encode(raw).decode()


def pem_blocks(path, label):
    """The PEM blocks of one label, in order."""
    end = f"-----END {label}-----"
    return [(part[part.index("-----BEGIN"):] + end).encode() for part in pathlib.Path(path).read_text().split(end)[:-1]]


def private_key(path, passphrase, number):
    """Of an exported identity: 0 the key to agree, 1 the key to sign."""
    return serialization.load_pem_private_key(pem_blocks(path, "ENCRYPTED PRIVATE KEY")[number], passphrase.encode())


def digest_of(key):
    """SHA-256 of a public key's SubjectPublicKeyInfo, and so the name of a sender or recipient."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).digest()


def spell(value):
    """The one spelling of a JSON value."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical(line):
    value = json.loads(line)
    assert spell(value) == line, "not canonical"
    return value


def root(leaves):
    """Tree hash of RFC 9162, 2.1.1, over leaf hashes."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + root(leaves[:split]) + root(leaves[split:])).digest()


def leaf_hashes(sealed):
    edges = [0, *range(56 + RANGE, len(sealed), RANGE), len(sealed)]
    return [hashlib.sha256(b"\0" + sealed[a:b]).digest() for a, b in zip(edges, edges[1:])]


def cipher(kind, key, package, name, role):
    """Chunked encryption of one object, under its own key and context."""
    key = HKDFExpand(hashes.SHA512(), 32, b"smp-package/v1 obj\0" + package + name).derive(key)
    return kind(key, b"smp-package/v1\0" + bytes([role]) + package + name)


def open_package(folder, recipient, passphrase, sender):
    folder, private = pathlib.Path(folder), private_key(recipient, passphrase, 0)
    sender = serialization.load_pem_public_key(pem_blocks(sender, "PUBLIC KEY")[-1])
    first, line, signature, rest = (folder / "header.smp").read_text("ascii").split("\n")
    assert first == "smp-package/v1" and rest == ""
    sender.verify(base64.b64decode(signature, validate=True), f"{first}\n{line}\n".encode(), ec.ECDSA(hashes.SHA384()))
    header, own = canonical(line), digest_of(private.public_key())
    package = bytes.fromhex(header["pkg"])
    assert header["v"] == 1 and digest_of(sender).hex() == header["sender"]
    mine = next(entry for entry in header["recipients"] if entry["kid"] == own.hex())
    info = b"smp-package/v1 pk\0" + package + digest_of(sender) + own
    key = SUITE.decrypt(base64.b64decode(mine["enc"]) + base64.b64decode(mine["ct"]), private, info)

    def open_object(entry, role):
        sealed = (folder / (entry["name"] + ENDINGS[role])).read_bytes()
        leaves = leaf_hashes(sealed)
        assert len(sealed) == entry["size"] and b64(root(leaves)) == entry["mth"], "not what was signed"
        decryptor = cipher(Cobblestone256Decryptor, key, package, bytes.fromhex(entry["name"]), role)
        return leaves, decryptor.update(sealed) + decryptor.finalize()

    manifest = open_object(header["manifest"], 0)[1]
    head, *lines = manifest.decode("utf-8").split("\n")
    head = canonical(head)
    assert len(manifest) % 65_536 == 0 and head["v"] == 1 and not any(lines[head["files"]:])
    packs = [open_object(pack, 1) for pack in header["packs"]]
    assert head["leaves"] == {str(number): [b64(leaf) for leaf in leaves] for number, (leaves, _) in enumerate(packs)}
    files = {}
    for entry in map(canonical, lines[: head["files"]]):
        contents = packs[entry["pack"]][1][entry["offset"]: entry["offset"] + entry["size"]]
        files[entry["path"]] = hashlib.sha256(contents).hexdigest()
        assert unicodedata.is_normalized("NFC", entry["path"]) and files[entry["path"]] == entry["sha256"]
    print(json.dumps({"package": header["pkg"], "purpose": header["purpose"], "files": files}))


def padme(length):
    """Padmé (PoPETs 2019/4)."""
    exponent = max(length, 1).bit_length() - 1
    unit = 1 << max(0, exponent - exponent.bit_length())
    return -(-length // unit) * unit


def seal_package(source, target, private, passphrase, recipient):
    target, key, package = pathlib.Path(target), os.urandom(32), os.urandom(16)

    def seal_object(plain, role):
        name = os.urandom(16)
        encryptor = cipher(Cobblestone256Encryptor, key, package, name, role)
        sealed = encryptor.update(plain) + encryptor.finalize()
        (target / (name.hex() + ENDINGS[role])).write_bytes(sealed)
        leaves = leaf_hashes(sealed)
        return {"mth": b64(root(leaves)), "name": name.hex(), "size": len(sealed)}, [b64(leaf) for leaf in leaves]

    pack, lines = b"", []
    for path in sorted(path for path in pathlib.Path(source).rglob("*") if path.is_file()):
        contents, name = path.read_bytes(), path.relative_to(source).as_posix()
        digest = hashlib.sha256(contents).hexdigest()
        lines.append(spell({"offset": len(pack), "pack": 0, "path": name, "sha256": digest, "size": len(contents)}))
        pack += contents
    pack_entry, leaves = seal_object(pack.ljust(padme(len(pack)), b"\0"), 1)
    manifest = "".join(line + "\n" for line in [spell({"files": len(lines), "leaves": {"0": leaves}, "v": 1}), *lines]).encode()
    manifest_entry, _ = seal_object(manifest.ljust(-(-len(manifest) // 65_536) * 65_536, b"\n"), 0)
    sign, agree = private_key(private, passphrase, 1), serialization.load_pem_public_key(pem_blocks(recipient, "PUBLIC KEY")[0])
    sender, kid = digest_of(sign.public_key()), digest_of(agree)
    wrapped = SUITE.encrypt(key, agree, b"smp-package/v1 pk\0" + package + sender + kid)
    recipients = [{"ct": b64(wrapped[97:]), "enc": b64(wrapped[:97]), "kid": kid.hex()}]
    header = {"created": "2024-02-29T12:00:00Z", "manifest": manifest_entry, "packs": [pack_entry], "pkg": package.hex(),
              "purpose": "written by python", "recipients": recipients, "sender": sender.hex(), "v": 1}
    message = f"smp-package/v1\n{spell(header)}\n"
    (target / "header.smp").write_text(message + b64(sign.sign(message.encode(), ec.ECDSA(hashes.SHA384()))) + "\n")


if __name__ == "__main__":
    {"open": open_package, "seal": seal_package}[sys.argv[1]](*sys.argv[2:])

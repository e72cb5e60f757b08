#!/usr/bin/env python3
"""Opens a sealed study package with public libraries only, from docs/package-format.md.

Usage: package_reader.py PACKAGE_FOLDER RECIPIENT_PRIVATE_PEM PASSPHRASE SENDER_PUBLIC_PEM

Prints one JSON object: package, purpose, and the SHA-256 of every file by path. Needs PyPI `cryptography` 50 or later, which brings its own
HPKE and its own Cobblestone (c2sp.org/chunked-encryption), so nothing here shares a line with the library under test.
"""
import base64
import hashlib
import json
import pathlib
import sys
import unicodedata

from cryptography.cobblestone import Cobblestone256Decryptor
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

RANGE = 512 * 16_400  # sealed bytes of a full range; range 0 holds the 56-byte prefix besides


def pem_blocks(text, label):
    """The PEM blocks of one label, in order."""
    end = f"-----END {label}-----"
    return [(part[part.index("-----BEGIN"):] + end).encode() for part in text.split(end)[:-1]]


def spki_digest(key):
    """SHA-256 of a public key's SubjectPublicKeyInfo."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(key.public_bytes(serialization.Encoding.DER, form)).digest()


def canonical(line):
    """Parses a line of JSON that must be in its one spelling."""
    value = json.loads(line)
    assert json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False) == line, "not canonical"
    return value


def root(leaves):
    """Tree hash of RFC 9162, 2.1.1, over leaf hashes."""
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + root(leaves[:split]) + root(leaves[split:])).digest()


def leaf_hashes(sealed):
    """Hash of every range of a sealed object."""
    edges = [0, *range(56 + RANGE, len(sealed), RANGE), len(sealed)]
    return [hashlib.sha256(b"\0" + sealed[a:b]).digest() for a, b in zip(edges, edges[1:])]


class Package:
    """A package whose signature held and whose key was unwrapped."""

    def __init__(self, folder, private, sender):
        self.folder = pathlib.Path(folder)
        first, line, signature, rest = (self.folder / "header.smp").read_text("ascii").split("\n")
        assert first == "smp-package/v1" and rest == ""
        message = f"{first}\n{line}\n".encode()
        sender.verify(base64.b64decode(signature, validate=True), message, ec.ECDSA(hashes.SHA384()))
        self.header = header = canonical(line)
        self.id = bytes.fromhex(header["pkg"])
        assert header["v"] == 1 and spki_digest(sender).hex() == header["sender"]
        own = spki_digest(private.public_key())
        mine = next(entry for entry in header["recipients"] if entry["kid"] == own.hex())
        info = b"smp-package/v1 pk\0" + self.id + spki_digest(sender) + own
        suite = Suite(KEM.P384, KDF.HKDF_SHA384, AEAD.AES_256_GCM)
        self.key = suite.decrypt(base64.b64decode(mine["enc"]) + base64.b64decode(mine["ct"]), private, info)

    def open(self, entry, role, ending):
        """Leaf hashes and plaintext of one object."""
        sealed = (self.folder / (entry["name"] + ending)).read_bytes()
        assert len(sealed) == entry["size"], "size differs"
        leaves = leaf_hashes(sealed)
        assert base64.b64encode(root(leaves)).decode() == entry["mth"], "tree hash differs"
        name = bytes.fromhex(entry["name"])
        key = HKDFExpand(hashes.SHA512(), 32, b"smp-package/v1 obj\0" + self.id + name).derive(self.key)
        decryptor = Cobblestone256Decryptor(key, b"smp-package/v1\0" + bytes([role]) + self.id + name)
        plain = decryptor.update(sealed) + decryptor.finalize()
        return leaves, plain

    def files(self):
        """Path and contents of every file."""
        _, manifest = self.open(self.header["manifest"], 0, ".smpm")
        assert len(manifest) % 65_536 == 0
        head, *lines = manifest.decode("utf-8").split("\n")
        head = canonical(head)
        entries, padding = lines[: head["files"]], lines[head["files"]:]
        assert head["v"] == 1 and not any(padding)
        packs = []
        for number, pack in enumerate(self.header["packs"]):
            leaves, plain = self.open(pack, 1, ".smpp")
            assert head["leaves"][str(number)] == [base64.b64encode(leaf).decode() for leaf in leaves]
            packs.append(plain)
        for entry in map(canonical, entries):
            assert unicodedata.is_normalized("NFC", entry["path"])
            contents = packs[entry["pack"]][entry["offset"]: entry["offset"] + entry["size"]]
            assert len(contents) == entry["size"] and hashlib.sha256(contents).hexdigest() == entry["sha256"]
            yield entry["path"], contents


def main():
    folder, private, passphrase, sender = sys.argv[1:]
    agree, _ = pem_blocks(pathlib.Path(private).read_text(), "ENCRYPTED PRIVATE KEY")
    agree = serialization.load_pem_private_key(agree, passphrase.encode())
    signer = serialization.load_pem_public_key(pem_blocks(pathlib.Path(sender).read_text(), "PUBLIC KEY")[-1])
    package = Package(folder, agree, signer)
    digests = {path: hashlib.sha256(contents).hexdigest() for path, contents in package.files()}
    print(json.dumps({"package": package.header["pkg"], "purpose": package.header["purpose"], "files": digests}))


if __name__ == "__main__":
    main()

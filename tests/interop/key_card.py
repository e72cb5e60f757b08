#!/usr/bin/env python3
"""Reads a key card with public libraries only, from docs/keys.md; prints what it says as JSON, or fails.

Usage: key_card.py CARD

Needs PyPI `cryptography`. Shares no line with the library under test.
"""
import base64
import hashlib
import json
import pathlib
import sys

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec


def main():
    text = pathlib.Path(sys.argv[1]).read_bytes()
    format_line, line, signature, end = text.split(b"\n")
    assert format_line == b"smp-key-card/v1" and end == b"" and len(text) <= 8192
    card = json.loads(line)
    assert sorted(card) == ["agree", "created", "expires", "label", "sign", "v"] and card["v"] == 1
    assert json.dumps(card, sort_keys=True, separators=(",", ":")).encode() == line, "not the one spelling"
    agree, sign = (base64.b64decode(card[name], validate=True) for name in ("agree", "sign"))
    key = serialization.load_der_public_key(sign)
    assert isinstance(key.curve, ec.SECP384R1) and agree != sign
    key.verify(base64.b64decode(signature, validate=True), format_line + b"\n" + line + b"\n", ec.ECDSA(hashes.SHA384()))
    fingerprint = hashlib.sha256(agree + sign).hexdigest()
    print(json.dumps({name: card[name] for name in ("created", "expires", "label")} | {"fingerprint": fingerprint}))


main()

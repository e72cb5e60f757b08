"""AES-256-GCM of PyPI `cryptography`: aesgcm.py encrypt|decrypt CHUNK_BYTES prints seconds per gigabyte, by the clock and of the processor."""

import os
import sys
import time

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

word, size = sys.argv[1], int(sys.argv[2])
cipher = AESGCM(bytes(32))
chunk = os.urandom(size)
count = max(1, (256 << 20) // size)
nonces = [number.to_bytes(12, "big") for number in range(count)]
if word == "encrypt":
    start = time.perf_counter(), time.process_time()
    for nonce in nonces:
        cipher.encrypt(nonce, chunk, None)
else:
    # One genuine chunk, opened again and again.
    sealed = cipher.encrypt(nonces[0], chunk, None)
    start = time.perf_counter(), time.process_time()
    for _ in nonces:
        cipher.decrypt(nonces[0], sealed, None)
end = time.perf_counter(), time.process_time()
print(*((after - before) * 1e9 / (count * size) for before, after in zip(start, end)))

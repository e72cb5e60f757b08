#!/usr/bin/env python3
"""The usual way in Python: list, get each object in a pool of 8 threads, decrypt in memory. Argument: the endpoint."""

import sys
from concurrent.futures import ThreadPoolExecutor

import boto3
from botocore.config import Config
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

settings = Config(max_pool_connections=8, s3={"addressing_style": "path"})
client = boto3.client("s3", endpoint_url=sys.argv[1], config=settings)
key = AESGCM(bytes(32))


def fetch(name):
    sealed = client.get_object(Bucket="b", Key=name)["Body"].read()
    return len(key.decrypt(sealed[:12], sealed[12:], None))


pages = client.get_paginator("list_objects_v2").paginate(Bucket="b", Prefix="plain-gcm/")
names = [entry["Key"] for page in pages for entry in page["Contents"]]
with ThreadPoolExecutor(8) as pool:
    print(sum(pool.map(fetch, names)), "bytes")

"""An S3 server on loopback, and homes that stand for machines of their own. Knows no corpus."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BUCKET = "lab-bucket"


@contextmanager
def s3_server() -> Generator[Any]:
    """A server with the empty bucket `lab-bucket`, named by the environment; gives a client."""
    server = pytest.importorskip("moto.server", reason="moto is not installed: the extra [dev]")
    boto3 = pytest.importorskip("boto3")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "AKIAHIDDEN")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "hidden-secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("NO_PROXY", "127.0.0.1")
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        yield client
        client.close()
    running.stop()


@contextmanager
def home(folder: Path) -> Generator[Path]:
    """Be on a machine whose home is a folder, while the body runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CYTOLAKE_HOME", str(folder))
        yield folder


def upload(client: Any, folder: Path, prefix: str) -> None:
    """Put a folder's files below a prefix."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            key = f"{prefix}/{path.relative_to(folder).as_posix()}"
            client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())


def keys(client: Any, prefix: str) -> list[str]:
    """The names of the objects below a prefix, relative to it."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{prefix}/")
    found = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    return sorted(key.removeprefix(f"{prefix}/") for key in found)

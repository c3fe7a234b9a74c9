from urllib.parse import quote

import pytest
from cytolake.platform.uris import (
    below,
    has_pattern,
    identity,
    is_uri,
    name_of,
    recorded,
    scrubbed,
    uris_recorded,
)
from hypothesis import given
from hypothesis import strategies as st

SIGNED = "https://h.org/a/b.h5ad?X-Amz-Credential=AKIA99&X-Amz-Signature=5ec4e7&versionId=v1"
GEO = "https://www.ncbi.nlm.nih.gov/geo/download/?acc=GSM1&format=file&file=GSM1.h5ad"


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ("s3://b/a.h5ad", True),
        ("memory://a", True),
        ("simplecache::s3://b/a", True),
        ("/data/a.h5ad", False),
        ("C:/a.h5ad", False),
        ("a.h5ad", False),
    ],
)
def test_a_uri_is_told_from_a_path(text: str, yes: bool):
    assert is_uri(text) is yes


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("s3://bucket/lab/a.h5ad", "s3://bucket/lab/a.h5ad"),
        ("https://me:pass@h.org:8443/a.h5ad", "https://h.org:8443/a.h5ad"),
        ("sftp://me@h.org/a@b.h5ad", "sftp://h.org/a@b.h5ad"),
        ("s3://AKIA:se/cr/et@bucket/a.h5ad", "s3://bucket/a.h5ad"),
        ("http://h.org:8080/a@b.h5ad", "http://h.org:8080/a@b.h5ad"),
        (SIGNED, "https://h.org/a/b.h5ad?versionId=v1"),
        (GEO, GEO),
        ("https://h.org/a?file=https%3A%2F%2Fx%3Fkey%3D1", "https://h.org/a"),
        ("https://h.org/a.h5ad#access_token=1", "https://h.org/a.h5ad"),
        ("az://c/a.h5ad?sig=abcdef", "az://c/a.h5ad"),
        ("s3://b/lab?/a.h5ad", "s3://b/lab?/a.h5ad"),
    ],
)
def test_what_is_recorded_of_a_uri_holds_no_secret(uri: str, said: str):
    assert recorded(uri) == said
    assert recorded(said) == said


def test_what_a_library_says_is_told_without_secrets_however_it_spells_them():
    uri = "https://me:pa%2Fss@h.org/a.h5ad?X-Amz-Signature=5ec4e7&x=abc%3Dd"
    said = f"403, message='Forbidden', url='{uri}' (me:pa/ss; 5ec4e7; abc=d; abc%3Dd)"
    told = scrubbed(said, uri)
    assert "url='https://h.org/a.h5ad'" in told and "Forbidden" in told
    assert not any(secret in told for secret in ("pa/ss", "pa%2Fss", "5ec4e7", "abc"))
    assert uris_recorded(f"path = '{uri}': no") == "path = 'https://h.org/a.h5ad': no"


@given(
    user=st.text("abcXYZ019-_", min_size=4, max_size=12),
    password=st.text("qrsT5678+/=", min_size=8, max_size=20).filter(lambda p: not p.isdigit()),
    signature=st.text("hijK2345%", min_size=8, max_size=20),
)
def test_no_user_password_or_signature_is_ever_recorded(user: str, password: str, signature: str):
    for scheme in ("s3", "https", "sftp"):
        written = password if scheme == "s3" else quote(password, safe="")
        uri = f"{scheme}://{user}:{written}@host.org/lab/cells.h5ad?Signature={signature}"
        assert recorded(uri) == f"{scheme}://host.org/lab/cells.h5ad"
        told = scrubbed(f"GET {uri} failed for {user} with {password}", uri)
        assert password not in told and signature not in told


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("s3://b/lab/pbmc.h5ad", "pbmc.h5ad"),
        ("s3://b/lab/sample%201/", "sample%201"),
        ("https://h.org/a%20b.h5ad?x=1", "a b.h5ad"),
        (GEO, "GSM1.h5ad"),
        ("memory://cells.h5ad", "cells.h5ad"),
        ("https://h.org", "source"),
    ],
)
def test_a_source_is_called_as_its_file(uri: str, name: str):
    assert name_of(uri) == name


def test_a_question_mark_is_a_pattern_in_a_bucket_and_a_query_on_the_web():
    assert has_pattern("s3://b/lab?/*.h5ad") and has_pattern("s3://b/lab?/a.h5ad")
    assert has_pattern("https://h.org/*.h5ad?x=1") and not has_pattern(SIGNED)
    assert not has_pattern("s3://b/a.h5ad?versionId=1")


def test_the_same_file_signed_anew_is_the_same_and_another_query_is_another():
    again = SIGNED.replace("5ec4e7", "other").replace("AKIA99", "AKIA11")
    assert identity(SIGNED) == identity(again) == identity(again.replace("//h", "//me:pw@h"))
    assert identity("https://h.org/a?id=1") != identity("https://h.org/a?id=2")
    assert identity("s3://b/a") == identity("s3://b/a/") != identity("gs://b/a")


def test_what_lies_below_a_folder_is_quoted_on_the_web_alone():
    assert below("s3://b/lab/", "x/a b.h5ad") == "s3://b/lab/x/a b.h5ad"
    assert below("https://h.org/lab", "a b", folder=True) == "https://h.org/lab/a%20b/"
    assert below("https://h.org/lab/", "") == "https://h.org/lab/"

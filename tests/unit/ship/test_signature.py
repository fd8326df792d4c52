"""What is signed is verified, and nothing else: each change of a signed bundle is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import sys

import numpy as np
import pytest
from model_signing import signing, verifying

import vitedge
from tests.support.keys import openssl, pair
from vitedge.core.bundle import read_manifest, seal
from vitedge.core.errors import InputError, UnavailableError
from vitedge.core.signature import SIGNATURE

LISTED = ("model.onnx", "golden.npz", "labels.txt", "manifest.json")
MEASURED = ("report.json", "report-jetson.json", "evidence.npz")
OFFSETS = 200
"""Of each file: its first and last byte, and those between at equal distances."""


@pytest.fixture
def trust(keys):
    return keys["release"].public


def refusal(bundle, trust, **further):
    with pytest.raises(InputError) as caught:
        vitedge.verify(bundle, trust=trust, **further)
    assert caught.value.fix
    assert str(bundle) in caught.value.what
    assert "\n" not in caught.value.what
    return caught.value.what


def reseal(bundle):
    """What a stranger does who changed a file: the manifest says its new hash."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    for name in manifest["files"]:
        content = (bundle / name).read_bytes()
        manifest["files"][name] = hashlib.sha256(content).hexdigest()
        manifest["sizes"][name] = len(content)
    (bundle / "manifest.json").write_text(json.dumps(manifest))


# -- what is right is accepted ------------------------------------------------------------------


def test_what_is_signed_is_verified_with_the_identity_of_each_file(signed, trust, keys):
    signature = vitedge.verify(signed, trust=trust)
    assert signature.files == {
        name: hashlib.sha256((signed / name).read_bytes()).hexdigest()
        for name in (*LISTED, *MEASURED)
    }
    assert (signature.artifact, signature.key) == ("small-fp32", "release.pub")
    assert signature.fingerprint == hashlib.sha256(trust.read_bytes()).hexdigest()
    assert signature.reports.keys() == set(MEASURED)


def test_without_reports_they_may_change(signed, keys, trust):
    assert vitedge.sign(signed, key=keys["release"].private).reports == {}
    (signed / "report.json").write_text("{}")
    assert vitedge.verify(signed, trust=trust).listed.keys() == set(LISTED)


@pytest.mark.parametrize("curve", ["prime256v1", "secp384r1", "secp521r1"])
def test_each_curve_signs_and_a_folder_of_keys_is_trusted(signed, tmp_path, keys, curve):
    folder = tmp_path / "trusted"
    folder.mkdir()
    shutil.copy(keys["stranger"].public, folder)
    one = pair(tmp_path, "one", curve)
    shutil.copy(one.public, folder)
    vitedge.sign(signed, key=one.private)
    assert vitedge.verify(signed, trust=folder).key == "one.pub"


def test_upstream_verifies_what_is_signed_here(signed, keys, trust):
    def upstream():
        config = verifying.Config().use_elliptic_key_verifier(public_key=trust)
        config.verify(signed, signed / SIGNATURE)

    upstream()
    (signed / "report-jetson.json").unlink()
    vitedge.sign(signed, key=keys["release"].private)
    upstream()  # reports may be there, unsigned
    (signed / "labels.txt").write_text("dog\n")
    with pytest.raises(ValueError, match=r"labels\.txt"):
        upstream()


def test_what_upstream_signs_is_verified_here(signed, keys, trust, tmp_path):
    (signed / SIGNATURE).unlink()
    config = signing.Config().use_elliptic_key_signer(private_key=keys["release"].private)
    config.sign(signed, signed / SIGNATURE)
    assert vitedge.verify(signed, trust=trust).signed_at == ""
    said = refusal(signed, trust, accepted=tmp_path / "accepted.json")
    assert "does not say when it was signed" in said


# -- what is changed is refused -----------------------------------------------------------------


def refuses_changes(bundle, name, offsets, trust):
    content = (bundle / name).read_bytes()
    for offset in offsets(len(content)):
        for bit in (0, 7):
            changed = bytearray(content)
            changed[offset] ^= 1 << bit
            (bundle / name).write_bytes(changed)
            refusal(bundle, trust)
    (bundle / name).write_bytes(content)
    vitedge.verify(bundle, trust=trust)


@pytest.mark.parametrize("name", [*LISTED, *MEASURED])
def test_each_changed_byte_is_refused(signed, trust, name):
    refuses_changes(
        signed,
        name,
        lambda size: sorted({*np.linspace(0, size - 1, OFFSETS, dtype=int).tolist()}),
        trust,
    )


@pytest.mark.heavy
@pytest.mark.parametrize("name", [*LISTED, *MEASURED])
def test_every_changed_byte_is_refused(signed, trust, name):
    refuses_changes(signed, name, range, trust)


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "labels.txt"])
def test_each_changed_byte_is_refused_by_name_where_the_manifest_says_so(signed, trust, name):
    content = (signed / name).read_bytes()
    for offset in range(0, len(content), max(1, len(content) // 16)):
        changed = bytearray(content)
        changed[offset] ^= 1
        (signed / name).write_bytes(changed)
        reseal(signed)
        assert f"{name!r} is not the file that was signed" in refusal(signed, trust)


def test_each_changed_byte_of_the_signature_is_refused_or_changes_nothing_that_it_says(
    signed, trust
):
    content, before = (signed / SIGNATURE).read_bytes(), vitedge.verify(signed, trust=trust)
    refused = 0
    for offset in range(0, len(content), 7):
        changed = bytearray(content)
        changed[offset] ^= 1
        (signed / SIGNATURE).write_bytes(changed)
        try:
            assert vitedge.verify(signed, trust=trust) == before
        except InputError as error:
            assert SIGNATURE in error.what
            refused += 1
    assert refused > 0.9 * len(content) / 7


@pytest.mark.parametrize("name", [*LISTED, *MEASURED])
def test_each_removed_and_each_renamed_file_is_refused(signed, trust, name):
    (signed / name).rename(signed / f"{name}.old")
    refusal(signed, trust)
    (signed / f"{name}.old").unlink()
    assert name in refusal(signed, trust)


def test_a_rename_that_the_manifest_follows_is_refused(signed, trust):
    (signed / "labels.txt").rename(signed / "names.txt")
    manifest = json.loads((signed / "manifest.json").read_text())
    for field in ("files", "sizes"):
        manifest[field]["names.txt"] = manifest[field].pop("labels.txt")
    (signed / "manifest.json").write_text(json.dumps(manifest))
    assert "'labels.txt' was signed, and is missing" in refusal(signed, trust)


def test_two_files_that_change_their_names_are_refused(signed, trust):
    (signed / "labels.txt").rename(signed / "x")
    (signed / "golden.npz").rename(signed / "labels.txt")
    (signed / "x").rename(signed / "golden.npz")
    reseal(signed)
    assert "'golden.npz' is not the file that was signed" in refusal(signed, trust)


@pytest.mark.parametrize("name", ["evil.so", "report-evil.json"])
def test_an_added_file_is_refused(signed, trust, name):
    (signed / name).write_text("{}")
    assert name in refusal(signed, trust)


def test_an_added_file_that_the_manifest_lists_is_refused(signed, trust):
    (signed / "evil.so").write_bytes(b"\x7fELF")
    manifest = json.loads((signed / "manifest.json").read_text())
    manifest["files"]["evil.so"] = ""
    (signed / "manifest.json").write_text(json.dumps(manifest))
    reseal(signed)
    assert "'evil.so' is not signed" in refusal(signed, trust)


# -- whose it is --------------------------------------------------------------------------------


def test_what_is_unsigned_or_by_another_is_refused(signed, trust, keys):
    vitedge.sign(signed, key=keys["stranger"].private)
    assert "by another key" in refusal(signed, trust)
    (signed / SIGNATURE).unlink()
    assert "is not signed: it has no signature.json" in refusal(signed, trust)


def test_a_strangers_signature_that_names_the_key_to_trust_is_refused(signed, trust, keys):
    before = vitedge.verify(signed, trust=trust).fingerprint
    vitedge.sign(signed, key=keys["stranger"].private)
    document = json.loads((signed / SIGNATURE).read_text())
    document["verificationMaterial"]["publicKey"]["hint"] = before
    (signed / SIGNATURE).write_text(json.dumps(document))
    assert "is not what release.pub has signed" in refusal(signed, trust)


def test_another_bundles_signature_is_refused(signed, trust, small_bundle, keys, tmp_path):
    other = small_bundle(tmp_path / "other-fp32", content=b"other weights")
    vitedge.sign(other, key=keys["release"].private)
    shutil.copy(other / SIGNATURE, signed / SIGNATURE)
    assert "is not the file that was signed" in refusal(signed, trust)


def test_a_statement_that_says_something_else_is_refused(signed, trust):
    document = json.loads((signed / SIGNATURE).read_text())
    envelope = document["dsseEnvelope"]
    statement = json.loads(base64.b64decode(envelope["payload"]))
    statement["predicate"]["serialization"]["signed_at"] = "2999-01-01T00:00:00+00:00"
    envelope["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()
    (signed / SIGNATURE).write_text(json.dumps(document))
    assert "is not what release.pub has signed" in refusal(signed, trust)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"null", b"[" * 100_000, b"\xff\xfe", b'{"mediaType": 1}'),
        b'{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json",'
        b'"verificationMaterial":{"certificate":{}},"dsseEnvelope":{"payload":"",'
        b'"payloadType":"application/vnd.in-toto+json","signatures":[{"sig":""}]}}',
        b'{"mediaType":"\\u001b[31m"}',
        b" " * (5 * 2**20),
    ],
)
def test_what_is_no_signature_is_refused(signed, trust, content):
    (signed / SIGNATURE).write_bytes(content)
    said = refusal(signed, trust)
    assert SIGNATURE in said
    assert said.isprintable()


def test_a_link_or_a_fifo_in_its_place_is_refused(signed, trust, tmp_path):
    (signed / SIGNATURE).rename(tmp_path / "elsewhere.json")
    (signed / SIGNATURE).symlink_to(tmp_path / "elsewhere.json")
    assert SIGNATURE in refusal(signed, trust)
    (signed / SIGNATURE).unlink()
    os.mkfifo(signed / SIGNATURE)
    assert SIGNATURE in refusal(signed, trust)


def test_signing_follows_no_link(signed, keys, tmp_path):
    (tmp_path / "mine").write_text("mine")
    (signed / SIGNATURE).unlink()
    (signed / SIGNATURE).symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match="link"):
        vitedge.sign(signed, key=keys["release"].private)
    assert (tmp_path / "mine").read_text() == "mine"


# -- what was accepted before -------------------------------------------------------------------


def test_what_is_older_than_what_was_accepted_is_refused(signed, trust, keys, tmp_path):
    accepted, older = tmp_path / "accepted.json", tmp_path / "older"
    vitedge.verify(signed, trust=trust, accepted=accepted)
    vitedge.verify(signed, trust=trust, accepted=accepted)
    shutil.copytree(signed, older)
    (signed / "labels.txt").write_text("cat\n")
    seal(signed, read_manifest(signed))
    vitedge.sign(signed, key=keys["release"].private)
    newer = vitedge.verify(signed, trust=trust, accepted=accepted).signed_at
    said = refusal(older, trust, accepted=accepted)
    assert f"older than what was accepted before: {newer}" in said
    vitedge.verify(older, trust=trust)  # nothing else is wrong with it
    assert newer in accepted.read_text()


def test_artifacts_are_accepted_by_their_names(signed, trust, keys, small_bundle, tmp_path):
    accepted = tmp_path / "accepted.json"
    other = small_bundle(tmp_path / "other-fp32")
    vitedge.sign(other, key=keys["release"].private)
    vitedge.sign(signed, key=keys["release"].private)
    vitedge.verify(signed, trust=trust, accepted=accepted)
    vitedge.verify(other, trust=trust, accepted=accepted)  # older, and another
    assert json.loads(accepted.read_text())["accepted"].keys() == {"small-fp32", "other-fp32"}


@pytest.mark.parametrize("content", ["", "[]", '{"schema": "another", "accepted": {}}', "\x00"])
def test_a_file_of_what_was_accepted_that_is_none_is_refused_and_kept(
    signed, trust, tmp_path, content
):
    accepted = tmp_path / "accepted.json"
    accepted.write_text(content)
    with pytest.raises(InputError, match=r"accepted\.json"):
        vitedge.verify(signed, trust=trust, accepted=accepted)
    assert accepted.read_text() == content


# -- keys ---------------------------------------------------------------------------------------


def test_what_is_no_public_key_is_refused(signed, keys, tmp_path):
    rsa, folder = tmp_path / "rsa.pub", tmp_path / "folder"
    openssl("genrsa", "-out", tmp_path / "rsa.pem", "2048")
    openssl("rsa", "-in", tmp_path / "rsa.pem", "-pubout", "-out", rsa)
    folder.mkdir()
    (tmp_path / "text").write_text("no key")
    cases = {
        tmp_path / "text": "is no public key in PEM",
        keys["release"].private: "is a private key",
        rsa: "is no key on P-256",
        folder: "no keys in",
        tmp_path / "missing": "no keys at",
    }
    for path, why in cases.items():
        with pytest.raises(InputError, match=why) as caught:
            vitedge.verify(signed, trust=path)
        assert str(path) in caught.value.what
        assert caught.value.fix
    shutil.copy(keys["release"].public, folder)
    shutil.copy(tmp_path / "text", folder / "README")
    with pytest.raises(InputError, match="README is no public key"):
        vitedge.verify(signed, trust=folder)


def test_what_is_no_private_key_is_refused(signed, keys, tmp_path):
    encrypted = tmp_path / "encrypted.pem"
    openssl(
        *("ec", "-in", keys["release"].private, "-aes256", "-passout", "pass:secret"),
        *("-out", encrypted),
    )
    openssl("genrsa", "-out", tmp_path / "rsa.pem", "2048")
    before = (signed / SIGNATURE).read_bytes()
    cases = {
        keys["release"].public: "is no private key in PEM",
        encrypted: "is encrypted",
        tmp_path / "rsa.pem": "is no key on P-256",
        tmp_path / "missing": "cannot read",
    }
    for path, why in cases.items():
        with pytest.raises(InputError, match=why) as caught:
            vitedge.sign(signed, key=path)
        assert caught.value.fix
    assert (signed / SIGNATURE).read_bytes() == before


def test_a_missing_package_is_said_to_be_missing(signed, keys, trust, monkeypatch):
    monkeypatch.setitem(sys.modules, "model_signing", None)
    with pytest.raises(UnavailableError) as caught:
        vitedge.sign(signed, key=keys["release"].private)
    assert "vitedge[sign]" in caught.value.fix
    vitedge.verify(signed, trust=trust)  # needs it not
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives", None)
    with pytest.raises(UnavailableError) as caught:
        vitedge.verify(signed, trust=trust)
    assert "vitedge[trust]" in caught.value.fix


def test_what_is_not_measured_has_no_report_to_sign(small_bundle, tmp_path, keys):
    with pytest.raises(InputError, match="has no report to sign"):
        vitedge.sign(small_bundle(tmp_path / "a"), key=keys["release"].private, report=True)

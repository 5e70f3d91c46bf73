"""Who this hub is: its certificate, its tokens, and the files that let others find it.

All files are 0600 in a directory of 0700. Tokens are 256 random bits, kept here only as SHA-256 (`tokens.json`); the
plain ones stand in the join file (for agents) and the token file (for clients), which are the user's to hand on.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from lanai.model.errors import UserError

TOKEN_BYTES: Final = 32
VALID_DAYS: Final = 3650
CERTIFICATE: Final = "cert.pem"
KEY: Final = "key.pem"
NEXT_CERTIFICATE: Final = "next-cert.pem"
NEXT_KEY: Final = "next-key.pem"


class Tokens(msgspec.Struct, kw_only=True):
    """The two tokens of a new hub, in plain: for the files that are handed on."""

    join: str
    user: str


def write_private(path: Path, data: bytes) -> None:
    """Write a file that nobody else may read, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.rename(path)


def ensure_certificate(directory: Path, host: str) -> str:
    """Make `cert.pem` and `key.pem` where missing; returns the pin: the certificate's SHA-256 in hexadecimal."""
    if (directory / NEXT_CERTIFICATE).exists() and not (directory / NEXT_KEY).exists():
        (directory / NEXT_CERTIFICATE).rename(directory / CERTIFICATE)  # a switch that was broken off
    if not ((directory / CERTIFICATE).exists() and (directory / KEY).exists()):
        _make_certificate(directory / CERTIFICATE, directory / KEY, host)
    return _pin(directory / CERTIFICATE)


def next_pin(directory: Path) -> str:
    """The pin of the certificate that was announced; empty where there is none."""
    is_whole = (directory / NEXT_CERTIFICATE).exists() and (directory / NEXT_KEY).exists()
    return _pin(directory / NEXT_CERTIFICATE) if is_whole else ""


def announce_certificate(directory: Path, host: str, files: Sequence[Path]) -> str:
    """Make the certificate that is to follow, where there is none, and put its pin into the files that are handed on.

    Returns:
        Its pin. A repeat changes nothing.

    Raises:
        UserError: there is no certificate that it could follow.
    """
    if not (directory / CERTIFICATE).exists():
        raise UserError(f"the hub in {directory} has no certificate", code="no_certificate", hint="lanai hub start")
    ensure_certificate(directory, host)
    if not next_pin(directory):
        _make_certificate(directory / NEXT_CERTIFICATE, directory / NEXT_KEY, host)
    for file in files:
        if file.exists():
            said = msgspec.json.decode(file.read_bytes(), type=dict[str, str])
            write_private(file, msgspec.json.encode(said | {"next_pin": next_pin(directory)}) + b"\n")
    return next_pin(directory)


def switch_certificate(directory: Path) -> str:
    """Have the announced certificate be the one that counts from the next start of the hub; returns its pin.

    Raises:
        UserError: none was announced.
    """
    pin = next_pin(directory)
    if not pin:
        hint = "lanai hub certificate --announce"
        raise UserError(f"the hub in {directory} has announced no certificate", code="no_certificate", hint=hint)
    (directory / NEXT_KEY).rename(directory / KEY)
    (directory / NEXT_CERTIFICATE).rename(directory / CERTIFICATE)
    return pin


def _pin(certificate: Path) -> str:
    import ssl

    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.read_text())).hexdigest()


def _make_certificate(certificate: Path, key: Path, host: str) -> None:
    import datetime as dt

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    private = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"lanai hub on {host}"[:64])])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=VALID_DAYS))
        .sign(private, hashes.SHA256())
    )
    unencrypted = serialization.NoEncryption()
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    write_private(key, private.private_bytes(pem, pkcs8, unencrypted))
    write_private(certificate, made.public_bytes(pem))


def ensure_tokens(directory: Path, join_file: Path, token_file: Path) -> Tokens:
    """The hub's tokens: those in the two files where they are still the hub's, new ones otherwise."""
    kept = directory / "tokens.json"
    join, user = _token_in(join_file), _token_in(token_file)
    known = kept.read_text() if kept.exists() else ""
    if not join or digest(join) not in known:
        join = secrets.token_hex(TOKEN_BYTES)
    if not user or digest(user) not in known:
        user = secrets.token_hex(TOKEN_BYTES)
    tokens = [
        {"sha256": digest(join), "kind": "agent", "user": ""},
        {"sha256": digest(user), "kind": "user", "user": getpass.getuser()},
    ]
    write_private(kept, msgspec.json.encode({"tokens": tokens}))
    return Tokens(join=join, user=user)


def digest(token: str) -> str:
    """How a token is kept."""
    return hashlib.sha256(token.encode()).hexdigest()


def write_join(join_file: Path, *, url: str, pin: str, next_pin: str, token: str) -> None:
    """What an agent needs to join."""
    body = {"url": url, "pin": pin, "token": token}
    write_private(join_file, msgspec.json.encode(body | _announced(next_pin)) + b"\n")


def write_user_token(token_file: Path, *, url: str, wire_url: str, pin: str, next_pin: str, token: str) -> None:
    """What a client on another machine needs."""
    body = {"url": url, "wire_url": wire_url, "pin": pin, "token": token, "user": getpass.getuser()}
    write_private(token_file, msgspec.json.encode(body | _announced(next_pin)) + b"\n")


def _announced(next_pin: str) -> dict[str, str]:
    return {"next_pin": next_pin} if next_pin else {}


def _token_in(path: Path) -> str:
    try:
        return str(msgspec.json.decode(path.read_bytes()).get("token", ""))
    except (OSError, msgspec.DecodeError, AttributeError):
        return ""

"""Who this hub is: its certificate, its own two tokens, and the files that let others find it.

All files are 0600 in a directory of 0700. Tokens are 256 random bits, of which the store keeps the SHA-256; the plain
ones stand in the join file (for agents) and the token file (for clients), which are the user's to hand on. Two tokens
are the hub's own, for these files; all others are people's.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from lanai.model.access import TokenKind
from lanai.model.errors import UserError
from lanai.model.ids import TokenId
from lanai.model.records import Recovered, SaveToken

TOKEN_BYTES: Final = 32
VALID_DAYS: Final = 3650
CERTIFICATE: Final = "cert.pem"
KEY: Final = "key.pem"
NEXT_CERTIFICATE: Final = "next-cert.pem"
NEXT_KEY: Final = "next-key.pem"
JOIN: Final = "join_token"
USER: Final = "user_token"
"""Names of the hub's values that say which tokens are its own."""
TOKENS_BEFORE: Final = "tokens.json"


class Own(msgspec.Struct, kw_only=True):
    """The hub's own tokens.

    Attributes:
        join, user: in plain, for the files that are handed on.
        tokens: every token that there is now.
        changed: those of them that are to be kept.
        meta: values to be kept: which are the hub's own.
    """

    join: str
    user: str
    tokens: list[SaveToken]
    changed: list[SaveToken]
    meta: dict[str, str]


def write_private(path: Path, data: bytes) -> None:
    """Write a file that nobody else may read, whole or not at all.

    What it is written into first is new and ours, also where others may write in its directory.
    """
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


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
        UserError: there is no certificate that it could follow, or one of the files cannot be understood.
    """
    if not (directory / CERTIFICATE).exists():
        raise UserError(f"the hub in {directory} has no certificate", code="no_certificate", hint="lanai hub start")
    # Before anything is made: a certificate that was told to nobody must not be there to be switched to.
    told = {file: _handed_on(file) for file in files if file.exists()}
    ensure_certificate(directory, host)
    if not next_pin(directory):
        _make_certificate(directory / NEXT_CERTIFICATE, directory / NEXT_KEY, host)
    for file, said in told.items():
        write_private(file, msgspec.json.encode(said | {"next_pin": next_pin(directory)}) + b"\n")
    return next_pin(directory)


def _handed_on(file: Path) -> dict[str, str]:
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, str])
    except msgspec.DecodeError as error:
        hint = "move it away: the hub's next start writes it anew"
        raise UserError(f"{file} is no file of the hub's: {error}", code="bad_token_file", hint=hint) from None


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


def own_tokens(recovered: Recovered, *, directory: Path, join_file: Path, token_file: Path, wall_us: int) -> Own:
    """The hub's own tokens: those in the two files where they are good, new ones otherwise.

    A new one takes the place of the last, which is revoked: it was lost, or somebody has revoked it. Changes nothing
    itself. Tokens of a hub of before there were any in the store are taken over from `tokens.json`.
    """
    own = Own(join=_token_in(join_file), user=_token_in(token_file), tokens=list(recovered.tokens), changed=[], meta={})
    if not own.tokens:
        known = _known_before(directory)
        for kind, plain in ((TokenKind.AGENT, own.join), (TokenKind.ADMIN, own.user)):
            if plain and digest(plain).hex() in known:
                _add(own, kind, plain, wall_us)
    own.join = _ensure(own, TokenKind.AGENT, own.join, int(recovered.meta.get(JOIN, "0")), wall_us)
    own.user = _ensure(own, TokenKind.ADMIN, own.user, int(recovered.meta.get(USER, "0")), wall_us)
    number_of = {token.sha256: str(token.token) for token in own.tokens}
    own.meta = {JOIN: number_of[digest(own.join)], USER: number_of[digest(own.user)]}
    return own


def _ensure(own: Own, kind: TokenKind, plain: str, last: int, wall_us: int) -> str:
    shown = digest(plain) if plain else b""
    if any(token.sha256 == shown and token.kind == kind and token.is_good(wall_us) for token in own.tokens):
        return plain
    for at, token in enumerate(own.tokens):
        if token.token == last and not token.revoked_at_us:
            own.tokens[at] = msgspec.structs.replace(token, revoked_at_us=wall_us)
            own.changed.append(own.tokens[at])
    made = secrets.token_hex(TOKEN_BYTES)
    _add(own, kind, made, wall_us)
    return made


def _add(own: Own, kind: TokenKind, plain: str, wall_us: int) -> None:
    number = TokenId(max((token.token for token in own.tokens), default=0) + 1)
    label = "the hub's join file" if kind is TokenKind.AGENT else "the hub's token file"
    token = SaveToken(number, kind, getpass.getuser(), digest(plain), wall_us, label=label)
    own.tokens.append(token)
    own.changed.append(token)


def _known_before(directory: Path) -> str:
    try:
        return (directory / TOKENS_BEFORE).read_text()
    except OSError:
        return ""


def forget_before(directory: Path) -> None:
    """The tokens of before are in the store now."""
    (directory / TOKENS_BEFORE).unlink(missing_ok=True)


def digest(token: str) -> bytes:
    """How a token is kept."""
    return hashlib.sha256(token.encode()).digest()


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

"""Proofs: both sides of a line show that they know a secret, and neither tells it.

The server sends a nonce. The client sends a nonce of its own and its proof, and the server answers with its proof. Each
proof holds for these two nonces and for one side only, so that neither a recording nor an echo proves anything.
"""

import hmac
import secrets

NONCE_BYTES = 32
PROOF_BYTES = 32
SECRET_BYTES = 32
_CLIENT = b"conversation-actors line 1 client"
_SERVER = b"conversation-actors line 1 server"


def new_nonce() -> bytes:
    """Return bytes that nobody has foreseen."""
    return secrets.token_bytes(NONCE_BYTES)


def new_secret() -> bytes:
    """Return a secret for one process's lines."""
    return secrets.token_bytes(SECRET_BYTES)


def client_proof(secret: bytes, server_nonce: bytes, client_nonce: bytes) -> bytes:
    """Return the proof that a client knows the secret."""
    return _proof(secret, _CLIENT, server_nonce, client_nonce)


def server_proof(secret: bytes, server_nonce: bytes, client_nonce: bytes) -> bytes:
    """Return the proof that a server knows the secret."""
    return _proof(secret, _SERVER, server_nonce, client_nonce)


def is_proven(expected: bytes, given: bytes) -> bool:
    """Tell whether a proof is the expected one, in a time that does not tell how much of it is."""
    return hmac.compare_digest(expected, given)


def _proof(secret: bytes, side: bytes, server_nonce: bytes, client_nonce: bytes) -> bytes:
    """Return a proof. Raises `ValueError` for parts of other lengths: a short one would let another part run on."""
    lengths = (len(secret), len(server_nonce), len(client_nonce))
    if lengths != (SECRET_BYTES, NONCE_BYTES, NONCE_BYTES):
        message = f"a secret and two nonces of {lengths} bytes"
        raise ValueError(message)
    return hmac.digest(secret, side + server_nonce + client_nonce, "sha256")

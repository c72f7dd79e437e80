"""Proofs: who knows the secret is believed, and nobody else is, whatever was heard before."""

import hashlib
import hmac

import pytest

from conversation_actors.line.proof import (
    NONCE_BYTES,
    PROOF_BYTES,
    client_proof,
    is_proven,
    new_nonce,
    new_secret,
    server_proof,
)

_SECRET, _SERVERS, _CLIENTS = bytes(range(32)), b"s" * 32, b"c" * 32


def test_a_proof_is_what_the_document_of_the_line_says() -> None:
    """Another implementation can make the same."""
    said = b"conversation-actors line 1 client" + _SERVERS + _CLIENTS
    assert client_proof(_SECRET, _SERVERS, _CLIENTS) == hmac.new(_SECRET, said, hashlib.sha256).digest()
    said = b"conversation-actors line 1 server" + _SERVERS + _CLIENTS
    assert server_proof(_SECRET, _SERVERS, _CLIENTS) == hmac.new(_SECRET, said, hashlib.sha256).digest()
    assert len(said) - 64 == 33
    assert PROOF_BYTES == 32


def test_a_proof_holds_for_one_side_one_secret_and_these_nonces() -> None:
    """A recording, an echo and a guess prove nothing."""
    proof = client_proof(_SECRET, _SERVERS, _CLIENTS)
    assert is_proven(proof, client_proof(_SECRET, _SERVERS, _CLIENTS))
    others = [
        server_proof(_SECRET, _SERVERS, _CLIENTS),
        client_proof(_SECRET, _CLIENTS, _SERVERS),
        client_proof(_SECRET, b"t" * 32, _CLIENTS),
        client_proof(_SECRET, _SERVERS, b"d" * 32),
        client_proof(b"t" * 32, _SERVERS, _CLIENTS),
        proof[:-1],
        b"",
    ]
    assert not any(is_proven(proof, other) for other in others)


@pytest.mark.parametrize("lengths", [(31, 32, 32), (32, 31, 33), (32, 33, 31), (0, 32, 32)])
def test_parts_of_other_lengths_make_no_proof(lengths: tuple[int, int, int]) -> None:
    """Else the end of one nonce could be told as the beginning of the other."""
    secret, servers, clients = (bytes(length) for length in lengths)
    with pytest.raises(ValueError, match="bytes"):
        client_proof(secret, servers, clients)


def test_nonces_and_secrets_differ() -> None:
    """Each is new."""
    assert len({new_nonce() for _ in range(100)} | {new_secret() for _ in range(100)}) == 200
    assert len(new_nonce()) == NONCE_BYTES

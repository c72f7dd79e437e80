"""How lines between nodes are encrypted where Ray's own connections are: with the files that Ray uses.

Both sides show a certificate of the same authority. Certificates name no host here, as Ray's need not: who the other
side is, the proof tells, which is inside of it.
"""

import ssl
from pathlib import Path


def server_context(authority: Path, key: Path, certificate: Path) -> ssl.SSLContext:
    """Return how an owner's process speaks. Raises `OSError` for files that cannot be used."""
    return _context(ssl.PROTOCOL_TLS_SERVER, authority, key, certificate)


def client_context(authority: Path, key: Path, certificate: Path) -> ssl.SSLContext:
    """Return how a client speaks. Raises `OSError` for files that cannot be used."""
    return _context(ssl.PROTOCOL_TLS_CLIENT, authority, key, certificate)


def _context(side: int, authority: Path, key: Path, certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority)
    context.load_cert_chain(certificate, key)
    return context

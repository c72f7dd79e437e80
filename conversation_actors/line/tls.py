"""How a client speaks TLS to owners: as Ray does, both sides show a certificate of the same authority."""

import ssl
from pathlib import Path


def client_context(authority: Path, key: Path, certificate: Path) -> ssl.SSLContext:
    """Return how to speak to who shows a certificate of this authority. Raises `OSError` for files that are none.

    The name in the certificate does not count: who listens at the address that Ray has told has to prove itself.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_verify_locations(authority)
    context.load_cert_chain(certificate, key)
    return context

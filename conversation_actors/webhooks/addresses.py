"""Which addresses are of the public internet: all that may be reached unless private networks are allowed."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

_REFUSED = tuple(
    map(
        ip_network,
        (
            # Whatever Python's own lists have: they differ between releases, and these do not change.
            "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
            "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24",
            "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
            "168.63.129.16/32",  # what a machine in Azure asks about itself, at an address that looks public
            "2001::/23", "2001:db8::/32", "3fff::/20",
        ),
    )
)  # fmt: skip
_UNICAST = ip_network("2000::/3")
"""All IPv6 addresses that are given out for the public internet. Of others nobody knows where they lead."""
_TRANSLATED = ip_network("64:ff9b::/96")
"""IPv6 addresses that a gateway translates to the IPv4 address in their last 32 bits."""


def is_public(address: str) -> bool:
    """Tell whether an address is of the public internet; an address inside an address counts too."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return all(map(_is_given_out, _meant(parsed)))


def _is_given_out(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv6Address) and address not in _UNICAST:
        return False
    return address.is_global and not any(address in network for network in _REFUSED)


def _meant(address: IPv4Address | IPv6Address) -> tuple[IPv4Address | IPv6Address, ...]:
    """Return all addresses that may be reached by this one."""
    if isinstance(address, IPv4Address):
        return (address,)
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address.sixtofour is not None:
        return (address, address.sixtofour)
    if address in _TRANSLATED:
        return (IPv4Address(int(address) & 0xFFFFFFFF),)
    return (address,)

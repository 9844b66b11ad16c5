//! Addresses that are no public host: IANA's IPv4 and IPv6 special-purpose registries, and what
//! operators of clouds put on addresses that look public.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

const fn v4(a: u8, b: u8, c: u8, d: u8, len: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), len)
}

const fn v6(segments: [u16; 8], len: u8) -> Ipv6Net {
    let [a, b, c, d, e, f, g, h] = segments;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, e, f, g, h), len)
}

/// Denied to everyone who was not let through.
const DENIED_V4: [Ipv4Net; 22] = [
    v4(0, 0, 0, 0, 8),
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    v4(168, 63, 129, 16, 32),
    v4(169, 254, 0, 0, 16),
    v4(172, 16, 0, 0, 12),
    v4(192, 0, 0, 0, 24),
    v4(192, 0, 2, 0, 24),
    v4(192, 31, 196, 0, 24),
    v4(192, 52, 193, 0, 24),
    v4(192, 88, 99, 0, 24),
    v4(192, 168, 0, 0, 16),
    v4(192, 175, 48, 0, 24),
    v4(198, 18, 0, 0, 15),
    v4(198, 51, 100, 0, 24),
    v4(203, 0, 113, 0, 24),
    v4(224, 0, 0, 0, 4),
    v4(233, 252, 0, 0, 24),
    v4(240, 0, 0, 0, 4),
    v4(255, 255, 255, 255, 32),
    v4(192, 0, 0, 192, 32),
];

/// Of IPv6 only this is public at all, and of it not the rows below.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0, 0, 0, 0, 0], 3);

/// What that leaves out, as the fewest networks.
const OUTSIDE_V6: [Ipv6Net; 3] = [
    v6([0, 0, 0, 0, 0, 0, 0, 0], 3),
    v6([0x4000, 0, 0, 0, 0, 0, 0, 0], 2),
    v6([0x8000, 0, 0, 0, 0, 0, 0, 0], 1),
];

const DENIED_V6: [Ipv6Net; 5] = [
    v6([0x2001, 0, 0, 0, 0, 0, 0, 0], 23),
    v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0], 32),
    v6([0x2002, 0, 0, 0, 0, 0, 0, 0], 16),
    v6([0x2620, 0x4f, 0x8000, 0, 0, 0, 0, 0], 48),
    v6([0x3fff, 0, 0, 0, 0, 0, 0, 0], 20),
];

/// Loopback and private networks: what `allow_private` lets through.
const PRIVATE_V4: [Ipv4Net; 5] = [
    v4(10, 0, 0, 0, 8),
    v4(100, 64, 0, 0, 10),
    v4(127, 0, 0, 0, 8),
    v4(172, 16, 0, 0, 12),
    v4(192, 168, 0, 0, 16),
];

const PRIVATE_V6: [Ipv6Net; 2] =
    [v6([0, 0, 0, 0, 0, 0, 0, 1], 128), v6([0xfc00, 0, 0, 0, 0, 0, 0, 0], 7)];

/// Instance metadata and the like: never opened but by its own name.
pub(super) const METADATA: [IpAddr; 10] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// An IPv4 address in IPv6 clothes is judged as the IPv4 address.
pub(super) fn canonical(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(it) => it.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// The IPv4 address that a translator or a tunnel makes of an IPv6 address: IPv4-compatible, SIIT
/// (RFC 7915), NAT64 (RFC 6052), local NAT64 (RFC 8215), 6to4 (RFC 3056), Teredo (RFC 4380).
pub(super) fn embedded_v4(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return None };
    let of = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match address.segments() {
        // The first of these are no translations but `::` and `::1`.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0 | 1, _, _, _, high, low]
        | [0x2002, high, low, _, _, _, _, _] => Some(of(high, low)),
        [0x2001, 0, _, _, _, _, high, low] => Some(of(!high, !low)),
        _ => None,
    }
}

/// All rows, for people: what is denied without leave.
pub(super) fn rows() -> impl Iterator<Item = IpNet> {
    let v4 = DENIED_V4.into_iter().map(IpNet::V4);
    v4.chain(OUTSIDE_V6.into_iter().chain(DENIED_V6).map(IpNet::V6))
}

/// Whether an address (made canonical) is a public host.
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(it) => !DENIED_V4.iter().any(|net| net.contains(&it)),
        IpAddr::V6(it) => GLOBAL_V6.contains(&it) && !DENIED_V6.iter().any(|net| net.contains(&it)),
    }
}

/// Whether an address (made canonical) is loopback or private.
pub(super) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(it) => PRIVATE_V4.iter().any(|net| net.contains(&it)),
        IpAddr::V6(it) => PRIVATE_V6.iter().any(|net| net.contains(&it)),
    }
}

/// Whether an address (made canonical) hands out credentials of the machine.
pub(super) fn is_metadata(address: IpAddr) -> bool {
    METADATA.contains(&address)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every way in which an IPv4 address is dressed as an IPv6 address.
    fn embeddings(address: Ipv4Addr) -> [Ipv6Addr; 8] {
        let [a, b, c, d] = address.octets().map(u16::from);
        let (high, low) = (a << 8 | b, c << 8 | d);
        [
            address.to_ipv6_mapped(),
            Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
            Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low),
            Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 0),
            Ipv6Addr::new(0x2002, high, low, 0xffff, 1, 2, 3, 4),
            Ipv6Addr::new(0x2001, 0, 0x808, 0x808, 0, 0, !high, !low),
        ]
    }

    /// First, last and a middle one.
    fn inside(net: IpNet) -> Vec<IpAddr> {
        let middle = match net {
            IpNet::V4(it) => {
                let (from, to) = (u32::from(it.network()), u32::from(it.broadcast()));
                IpAddr::V4((from + (to - from) / 2).into())
            }
            IpNet::V6(it) => {
                let (from, to) = (u128::from(it.network()), u128::from(it.broadcast()));
                IpAddr::V6((from + (to - from) / 2).into())
            }
        };
        vec![net.network(), middle, net.broadcast()]
    }

    /// The one before the first and the one behind the last.
    fn around(net: IpNet) -> Vec<IpAddr> {
        match net {
            IpNet::V4(it) => {
                let (from, to) = (u32::from(it.network()), u32::from(it.broadcast()));
                let both = [from.checked_sub(1), to.checked_add(1)];
                both.into_iter().flatten().map(|it| IpAddr::V4(it.into())).collect()
            }
            IpNet::V6(it) => {
                let (from, to) = (u128::from(it.network()), u128::from(it.broadcast()));
                let both = [from.checked_sub(1), to.checked_add(1)];
                both.into_iter().flatten().map(|it| IpAddr::V6(it.into())).collect()
            }
        }
    }

    #[test]
    fn each_row_is_denied_from_its_first_address_to_its_last() {
        for net in rows() {
            for address in inside(net) {
                assert!(!is_public(canonical(address)), "{address} of {net}");
            }
        }
    }

    #[test]
    fn what_lies_beside_a_row_is_public_unless_another_row_has_it() {
        for net in rows() {
            for address in around(net) {
                let in_another = rows().any(|it| it.contains(&address));
                assert_eq!(is_public(address), !in_another, "{address} beside {net}");
            }
        }
        for text in ["1.0.0.0", "8.8.8.8", "223.255.255.255", "2606:4700::1", "2a00::1"] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn no_row_is_reached_in_ipv6_clothes() {
        for net in DENIED_V4 {
            for address in inside(net.into()) {
                let IpAddr::V4(address) = address else { unreachable!() };
                for dressed in embeddings(address) {
                    let it = canonical(dressed.into());
                    assert!(!is_public(it), "{dressed} of {net}");
                    let found = it == IpAddr::V4(address) || embedded_v4(it) == Some(address);
                    // `::` and `::1` are rows of their own.
                    let plain = u128::from(dressed) <= 1;
                    assert!(found || plain, "{dressed} hides {address}");
                }
            }
        }
    }

    #[test]
    fn addresses_of_credentials_are_never_public_nor_private_by_accident() {
        for address in METADATA {
            assert!(is_metadata(address) && !is_public(address), "{address}");
        }
    }
}

/// Ports of services that must not be spoken to in HTTP, whoever has leave: those that the
/// [Fetch standard](https://fetch.spec.whatwg.org/#port-blocking) blocks, and where databases,
/// brokers and the control of machines usually listen.
const BAD: [u16; 103] = [
    0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101,
    102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427,
    445, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989,
    990, 993, 995, 1433, 1521, 1719, 1720, 1723, 2049, 2375, 2376, 2379, 2380, 3306, 3389, 3659,
    4045, 4190, 5060, 5061, 5432, 5672, 5900, 6000, 6379, 6443, 6566, 6665, 6666, 6667, 6668, 6669,
    6679, 6697, 9042, 9200, 9300, 10080, 10250, 11211, 27017,
];

/// Whether nobody's leave opens this port.
pub(super) fn is_bad(port: u16) -> bool {
    BAD.binary_search(&port).is_ok()
}

/// Whether a public host may be spoken to on this port without further leave.
pub(super) fn is_usual(port: u16, tls: bool) -> bool {
    usual(tls).contains(&port)
}

/// These ports.
pub(super) fn usual(tls: bool) -> &'static [u16] {
    if tls { &[443, 8443] } else { &[443, 8443, 80, 8080] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bad_ports_are_in_order_so_that_they_are_found() {
        assert!(BAD.is_sorted());
        for port in [0, 22, 25, 6379, 9200, 11211, 27017] {
            assert!(is_bad(port), "{port}");
        }
        for port in [80, 443, 8080, 8443, 9000, 41234] {
            assert!(!is_bad(port), "{port}");
        }
    }
}

//! Which headers of a delivery are not a tenant's to set.

/// Those that belong to HTTP and to the connection, in lower case.
const RESERVED: [&str; 10] = [
    "host",
    "content-length",
    "content-encoding",
    "transfer-encoding",
    "connection",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "keep-alive",
];

/// Whether a header of this name, in lower case, is HTTP's own or no header at all. Those of the
/// signature, `webhook-…`, are another matter: some may be set by who signs.
pub fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
        || name.starts_with("proxy-")
        || http::HeaderName::from_bytes(name.as_bytes()).is_err()
}

/// Whether a value has only what a header may have: printable ASCII and tabs.
pub fn is_plain(value: &str) -> bool {
    value.bytes().all(|it| (0x20..0x7f).contains(&it) || it == b'\t')
}

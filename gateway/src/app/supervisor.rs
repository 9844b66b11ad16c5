//! What a supervisor is told: that the gateway takes requests, and that it stops
//! ([sd_notify](https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html)).

use std::{ffi::OsStr, io, os::unix::ffi::OsStrExt, os::unix::net::SocketAddr, path::Path};

use std::os::unix::net::UnixDatagram;

/// Where a supervisor listens, if there is one.
const SOCKET: &str = "NOTIFY_SOCKET";

/// What the supervisor is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// The store is open and requests are answered.
    Ready,
    /// It drains and ends.
    Stopping,
}

impl State {
    fn text(self) -> &'static str {
        match self {
            Self::Ready => "READY=1\nSTATUS=takes events and delivers them",
            Self::Stopping => "STOPPING=1\nSTATUS=finishes what is in flight",
        }
    }
}

/// Tells the supervisor, if there is one. That it cannot be told stops nothing.
pub fn tell(state: State) {
    let Some(name) = std::env::var_os(SOCKET) else { return };
    if let Err(error) = send(&name, state) {
        tracing::warn!(%error, ?state, "the supervisor at NOTIFY_SOCKET cannot be told");
    }
}

fn send(name: &OsStr, state: State) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.text().as_bytes(), &address(name)?).map(drop)
}

/// A path, or behind `@` a name in Linux' abstract namespace.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes().split_first() {
        Some((b'/', _)) => SocketAddr::from_pathname(Path::new(name)),
        #[cfg(target_os = "linux")]
        Some((b'@', name)) => {
            use std::os::linux::net::SocketAddrExt;
            SocketAddr::from_abstract_name(name)
        }
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "must begin with / or @")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_and_abstract_names_are_addresses() {
        for (name, fits) in [
            ("/run/systemd/notify", true),
            ("@hookgate-test", cfg!(target_os = "linux")),
            ("vsock:2:1234", false),
            ("relative", false),
            ("", false),
        ] {
            assert_eq!(address(OsStr::new(name)).is_ok(), fits, "{name}");
        }
    }
}

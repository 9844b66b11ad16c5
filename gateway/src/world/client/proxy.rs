//! A tunnel through the operator's egress proxy
//! ([RFC 9110, CONNECT](https://www.rfc-editor.org/rfc/rfc9110#name-connect)).

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::world::FailureClass;
use crate::world::client::connect::Failure;
use crate::world::egress::Proxy;

const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Asks for a tunnel to `authority` (host and port) on a fresh connection to the proxy.
pub(super) async fn tunnel(
    stream: &mut TcpStream,
    proxy: &Proxy,
    authority: &str,
) -> Result<(), Failure> {
    let failed = |why: String| (FailureClass::ConnectFailed, format!("the egress proxy: {why}"));
    let authorization = proxy.authorization.as_deref();
    let authorization = authorization.map(|it| format!("Proxy-Authorization: {it}\r\n"));
    let head = format!(
        "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{}\r\n",
        authorization.unwrap_or_default()
    );
    stream.write_all(head.as_bytes()).await.map_err(|it| failed(it.to_string()))?;
    // One byte at a time, since what follows the head belongs to the endpoint.
    let mut answer = Vec::with_capacity(256);
    while !answer.ends_with(b"\r\n\r\n") {
        if answer.len() >= HEAD_BYTES_MAX {
            return Err(failed("its answer is too large".to_owned()));
        }
        let byte = stream.read_u8().await;
        answer.push(byte.map_err(|_| failed("it closed the connection".to_owned()))?);
    }
    match status(&answer) {
        Some(200..=299) => Ok(()),
        // A proxy that checks addresses itself says no like this.
        Some(403 | 407) if proxy.trusted => {
            let why = "the egress proxy does not let deliveries go there";
            Err((FailureClass::BlockedAddress, why.to_owned()))
        }
        Some(status) => Err(failed(format!("it answered {status}"))),
        None => Err(failed("it does not speak HTTP".to_owned())),
    }
}

fn status(head: &[u8]) -> Option<u16> {
    let line = std::str::from_utf8(head.split(|it| *it == b'\r').next()?).ok()?;
    let mut words = line.split(' ');
    words.next().filter(|it| it.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

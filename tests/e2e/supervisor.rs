use std::{
    os::linux::net::SocketAddrExt,
    os::unix::net::{SocketAddr, UnixDatagram},
    time::Duration,
};

use hookgate_tests::Gateway;

/// What the supervisor hears next.
fn heard(socket: &UnixDatagram) -> String {
    let mut buffer = [0; 512];
    let count = socket.recv(&mut buffer).expect("the gateway says something");
    String::from_utf8_lossy(&buffer[..count]).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_supervisor_is_told_when_it_is_ready_and_when_it_stops() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let name = format!("hookgate-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    for (socket, told) in [
        (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_owned()),
        (UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}")),
    ] {
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let environment = [("NOTIFY_SOCKET", told.as_str())];
        let mut gateway = Gateway::start_in(&folder.path().join("data"), &[], &environment);
        assert!(heard(&socket).lines().any(|it| it == "READY=1"));
        assert!(gateway.terminate().await.success());
        assert!(heard(&socket).lines().any(|it| it == "STOPPING=1"));
    }
}

#[tokio::test]
async fn a_supervisor_that_is_not_there_hinders_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for told in ["/nowhere/notify", "@hookgate-test-nobody", "vsock:2:1", "relative"] {
        let environment = [("NOTIFY_SOCKET", told)];
        let mut gateway = Gateway::start_in(&folder.path().join("data"), &[], &environment);
        // It asserts that it is ready.
        gateway.get("/readyz").await;
        assert!(gateway.terminate().await.success());
    }
}

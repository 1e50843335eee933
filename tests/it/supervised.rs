//! What looks after a node: whether it lives, can serve, listens, stops.

use std::collections::BTreeMap;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::process::{Program, run};
use crate::support::mint::TestMint;
use crate::support::port::Kept;
use crate::support::upstream::Upstream;

/// What systemd would hear next.
fn heard(socket: &UnixDatagram) -> String {
    let mut message = [0; 256];
    let read = socket.recv(&mut message).unwrap();
    String::from_utf8_lossy(&message[..read]).trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_program_says_how_its_node_is_and_systemd_hears_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let (mint, upstream) = (TestMint::start().await, Upstream::start().await);
    // Nobody else is given it, and the node may listen on it all the same.
    let kept = Kept::free();
    let (port, socket) = (kept.address().port().to_string(), dir.path().join("notify"));
    let systemd = UnixDatagram::bind(&socket).unwrap();
    systemd.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let address = [("PORT", port.as_str()), ("HOST", "0.0.0.0")];
    let settings: BTreeMap<String, String> = address.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let health = async |words: &[&str]| run(dir.path(), &settings, words).await;

    let nobody = health(&["health"]).await;
    assert_eq!(nobody.code, 1);
    let said = format!("no node answers on 0.0.0.0:{port}: no connection could be made\n");
    assert_eq!(nobody.complained, said);

    let notify = socket.display().to_string();
    let mut more = address.to_vec();
    more.extend([("NOTIFY_SOCKET", notify.as_str()), ("MAINTENANCE", "true")]);
    let program = Program::start(dir.path(), &mint, &upstream, &more).await;
    assert_eq!(heard(&systemd), "READY=1");
    let (lives, serves) = (health(&["health"]).await, health(&["health", "--ready"]).await);
    assert_eq!((lives.code, lives.said.as_str()), (0, "the node is well\n"));
    assert_eq!(serves.code, 1);
    assert!(serves.complained.contains("the node is being maintained"), "{serves:?}");
    program.stop().await;
    assert_eq!(heard(&systemd), "STOPPING=1");
    assert_eq!(health(&["health"]).await.code, 1);

    // Where no systemd listens, nothing is missed.
    let program = Program::start(dir.path(), &mint, &upstream, &address).await;
    let ready = async || run(dir.path(), &settings, &["health", "--ready"]).await.code == 0;
    crate::support::answers::until("it can serve", ready).await;
    program.stop().await;

    let any = BTreeMap::from([("PORT".to_owned(), "0".to_owned())]);
    assert_eq!(run(dir.path(), &any, &["health"]).await.code, 1);
    assert_eq!(run(dir.path(), &settings, &["health", "--loud"]).await.code, 2);
    drop(kept);
}

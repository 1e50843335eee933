//! The node's onion: launched again until it stands, and connections to it handed on.
//!
//! Its key is made once and kept by arti in `DATA_DIR/tor/state/keystore` (0600, in directories that are
//! the owner's alone); whoever has that file has the address.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt as _};
use safelog::DisplayRedacted as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tor_cell::relaycell::msg::{Connected, End, EndReason};
use tor_hsservice::status::State as Reported;
use tor_hsservice::{OnionServiceConfig, RendRequest, RunningOnionService, StreamRequest};
use tor_proto::stream::IncomingStreamRequest;

use super::inside::{Client, Inside, Pauses, bootstrap, explain};
use super::{Standing, State, Visit, Visits, hostname};

/// That of `http://….onion`.
const PORT: u16 = 80;
/// Circuits of clients at a time. One more is turned away.
const MAX_CIRCUITS: usize = 1024;
/// Connections that wait to be served.
const WAITING: usize = 16;
/// Tor says of no cell that it has arrived, and with a circuit goes what still waits to be sent on it.
const LINGER: Duration = Duration::from_secs(5);
/// What making the address takes is a file or two. A disk may be slow, and what this directory served before may
/// just be ending.
const PATIENCE: Duration = Duration::from_secs(3);

/// Starts the onion. Its address is known at once, unless something is wrong.
pub(super) async fn appear(inside: &Inside) -> (watch::Receiver<Standing>, Visits) {
    let (sender, mut own) =
        watch::channel(Standing { url: String::new(), state: State::Starting("not launched yet".to_owned()) });
    let (visits, receiver) = mpsc::channel(WAITING);
    let keeper = Keeper {
        config: inside.service.clone(),
        standing: sender,
        visits,
        circuits: Arc::new(Semaphore::new(MAX_CIRCUITS)),
        tasks: inside.tasks.clone(),
        stop: inside.stop.clone(),
    };
    let (client, data_dir) = (inside.client.clone(), inside.data_dir.clone());
    inside.tasks.spawn(async move { keeper.keep(client, &data_dir).await });
    // Who announces the node would otherwise say two things one after the other.
    if tokio::time::timeout(PATIENCE, own.wait_for(|standing| !standing.url.is_empty())).await.is_err() {
        tracing::warn!("the onion address is not known yet; the node starts without it");
    }
    (own, receiver)
}

struct Keeper {
    config: OnionServiceConfig,
    standing: watch::Sender<Standing>,
    visits: mpsc::Sender<Visit>,
    circuits: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Keeper {
    async fn keep(&self, mut client: watch::Receiver<Option<super::inside::Standing>>, data_dir: &Path) {
        let mut pauses = Pauses::new();
        let mut number = 0;
        loop {
            let standing = client.borrow_and_update().clone();
            let why = match standing {
                Some(Ok(client)) => match client.launch_onion_service(self.config.clone()) {
                    Ok(Some((service, requests))) => {
                        pauses.begin_again();
                        self.note_address(&service, data_dir);
                        self.serve(&client, &service, requests, &mut number).await;
                        "it ended by itself".to_owned()
                    }
                    Ok(None) => "TOR_CONFIG says that it is not to be".to_owned(),
                    Err(error) => explain(&error),
                },
                Some(Err(why)) => why,
                None => String::new(),
            };
            if self.stop.is_cancelled() {
                return;
            }
            if !why.is_empty() {
                tracing::warn!(%why, "the onion is not there");
                self.note(State::Failed(why));
            }
            let goes_on = tokio::select! {
                // A client that was not there is.
                changed = client.changed() => changed.is_ok(),
                goes_on = pauses.pause(&self.stop) => goes_on,
            };
            if !goes_on {
                return;
            }
        }
    }

    fn note_address(&self, service: &RunningOnionService, data_dir: &Path) {
        let Some(address) = service.onion_address() else {
            self.note(State::Failed("its key is not in the keystore".to_owned()));
            return;
        };
        let host = address.display_unredacted().to_string();
        if let Err(error) = std::fs::write(hostname(data_dir), format!("{host}\n")) {
            tracing::warn!(%error, "the onion address was not written down");
        }
        tracing::info!("the node's address in Tor is http://{host}");
        self.standing.send_modify(|standing| standing.url = format!("http://{host}"));
    }

    fn note(&self, state: State) {
        self.standing.send_if_modified(|standing| {
            let is_new = standing.state != state;
            standing.state = state;
            is_new
        });
    }

    /// Until it ends, or the node does.
    async fn serve(
        &self,
        client: &Client,
        service: &RunningOnionService,
        requests: impl Stream<Item = RendRequest>,
        number: &mut u64,
    ) {
        let mut requests = pin!(requests);
        let (mut events, mut progress) = (service.status_events(), client.bootstrap_events());
        let mut way = pin!(bootstrap(client, &self.stop));
        let mut is_on_way = true;
        loop {
            tokio::select! {
                () = &mut way, if is_on_way => is_on_way = false,
                request = requests.next() => match request {
                    Some(request) => {
                        *number = number.wrapping_add(1);
                        self.admit(request, *number);
                    }
                    None => return,
                },
                Some(_) = events.next() => {}
                Some(_) = progress.next() => {}
                () = self.stop.cancelled() => return,
            }
            self.note(judge(service, client));
        }
    }

    fn admit(&self, request: RendRequest, number: u64) {
        let Ok(permit) = Arc::clone(&self.circuits).try_acquire_owned() else {
            tracing::debug!("a circuit was turned away: there are too many");
            return;
        };
        let (visits, stop) = (self.visits.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = attend(request, number, visits, permit) => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

/// Takes the connections that come by one circuit.
async fn attend(request: RendRequest, circuit: u64, visits: mpsc::Sender<Visit>, _permit: OwnedSemaphorePermit) {
    let mut streams = match request.accept().await {
        Ok(streams) => pin!(streams),
        Err(error) => return tracing::debug!(%error, "a circuit did not come about"),
    };
    while let Some(stream) = streams.next().await {
        let is_web = matches!(stream.request(), IncomingStreamRequest::Begin(begin) if begin.port() == PORT);
        // A node that stops takes no more.
        if !is_web || visits.is_closed() {
            refuse(stream).await;
            continue;
        }
        match stream.accept(Connected::new_empty()).await {
            Ok(stream) => {
                if visits.send(Visit { stream: Box::new(stream), circuit, linger: LINGER }).await.is_err() {
                    tracing::debug!("a connection came when the node stopped");
                }
            }
            Err(error) => tracing::debug!(%error, "a connection did not come about"),
        }
    }
}

async fn refuse(stream: StreamRequest) {
    if let Err(error) = stream.reject(End::new_with_reason(EndReason::DONE)).await {
        tracing::debug!(%error, "a connection was not refused in form");
    }
}

/// What to tell the operator. arti is careful, and an onion that it does not call reachable may be.
fn judge(service: &RunningOnionService, client: &Client) -> State {
    let status = service.status();
    match status.state() {
        Reported::Running => State::Reachable("reachable"),
        Reported::DegradedReachable => {
            State::Reachable("reachable, with fewer introduction points than it should have")
        }
        Reported::DegradedUnreachable => {
            State::Starting("hardly reachable: its descriptor is not everywhere".to_owned())
        }
        Reported::Recovering => State::Starting("recovering".to_owned()),
        Reported::Bootstrapping => State::Starting(client.bootstrap_status().to_string()),
        Reported::Broken => State::Failed("arti says that it is broken, and goes on trying".to_owned()),
        // Its tasks have not begun; when they end, so do the requests.
        Reported::Shutdown => State::Starting("launched".to_owned()),
        _ => State::Starting("in a state that has no name here".to_owned()),
    }
}

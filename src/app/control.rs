//! The Unix socket by which commands reach the running process: HTTP/1 under `/api/v1`, JSON both ways.
//!
//! Whoever calls this by another name than [`HOST`] wants the console: a browser to which the socket is forwarded.
//!
//! Only the user that the process runs as and root are let in, whatever the file's mode says.

use std::{
    io,
    os::unix::{fs::PermissionsExt, net::UnixListener as StdListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
};

use crate::{
    app::{
        Accept, Edge,
        console::Console,
        peers::{NewKeys, NewPeer, PeerEdit},
        rules::RuleEdit,
        users::{self, UserEdit},
    },
    config::{Problems, edits::Switch},
    pages,
    supervise::{Phase, Stop, task},
};

/// What commands call the edge. No browser does, unless somebody's DNS made it; none of theirs is taken.
pub const HOST: &str = "hearthgate";
/// A request head must be here by then.
const HEAD: Duration = Duration::from_secs(5);
/// A whole exchange, a reload with large lists included.
const EXCHANGE: Duration = Duration::from_secs(300);
/// Commands at the same time.
const COMMANDS: usize = 16;
/// Bytes of a request's body.
const BODY: usize = 512 * 1024;

/// Where the socket is in a state folder.
pub fn socket(state: &Path) -> PathBuf {
    state.join("control.sock")
}

/// What a command is told when it failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// One sentence.
    pub error: String,
    /// What is wrong with the configuration, if that is the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// A failure and whose it is.
#[derive(Clone, Debug)]
pub struct Refusal {
    status: StatusCode,
    failure: Failure,
}

impl Refusal {
    /// The caller asked for something that cannot be.
    pub fn asked(error: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::CONFLICT, error)
    }

    /// The thing is not there.
    pub fn missing(error: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::NOT_FOUND, error)
    }

    /// The configuration is bad; nothing was changed.
    pub fn config(problems: &Problems) -> Self {
        let failure = Failure {
            error: "the configuration was refused; nothing was changed".into(),
            problems: problems.iter().map(ToString::to_string).collect(),
        };
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, failure }
    }

    /// The configuration cannot come into force; nothing was changed.
    pub fn unprepared(error: impl std::fmt::Display) -> Self {
        let failure = Failure {
            error: "the configuration was refused; nothing was changed".into(),
            problems: vec![error.to_string()],
        };
        Self { status: StatusCode::UNPROCESSABLE_ENTITY, failure }
    }

    /// It is our fault.
    pub fn ours(error: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error)
    }

    fn new(status: StatusCode, error: impl std::fmt::Display) -> Self {
        Self { status, failure: Failure { error: error.to_string(), problems: Vec::new() } }
    }

    /// Returns the status and what the caller is told.
    pub(super) fn into_parts(self) -> (StatusCode, Failure) {
        (self.status, self.failure)
    }

    /// Returns what the caller is told.
    pub fn failure(&self) -> &Failure {
        &self.failure
    }
}

/// Makes the socket. The caller holds the lock of the state folder, so what is there is left over.
pub fn bind(state: &Path) -> io::Result<StdListener> {
    let path = socket(state);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = StdListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Whether a user may tell this process what to do: root, and the one that it runs as.
pub(super) fn is_let_in(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

/// Answers commands until the process ends.
pub(super) async fn serve(
    listener: Arc<StdListener>,
    edge: Arc<Edge>,
    console: Arc<Console>,
    stop: Stop,
) -> io::Result<()> {
    let listener = UnixListener::from_std(listener.try_clone()?)?;
    let commands = Arc::new(Semaphore::new(COMMANDS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.reached(Phase::Now) => return Ok(()),
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "control socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(caller) = stream.peer_cred().map(|cred| cred.uid()) else { continue };
        if !is_let_in(caller) {
            tracing::warn!(uid = caller, "control socket: refused another user");
            continue;
        }
        let Ok(permit) = commands.clone().try_acquire_owned() else { continue };
        let (edge, console) = (edge.clone(), console.clone());
        task("control", async move {
            let _permit = permit;
            connection(stream, edge, console, caller).await;
        });
    }
}

async fn connection(stream: UnixStream, edge: Arc<Edge>, console: Arc<Console>, caller: u32) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (edge, console) = (edge.clone(), console.clone());
        async move {
            Ok::<_, std::convert::Infallible>(match is_command(&request) {
                true => answer(request, edge, caller).await,
                false => page(request, console, caller).await,
            })
        }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD).keep_alive(false).max_buf_size(16 * 1024);
    let exchange = server.serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = tokio::time::timeout(EXCHANGE, exchange).await {
        tracing::debug!(%error, "control socket");
    }
}

/// Commands name the edge as no browser does, and say nothing of pages.
fn is_command(request: &Request<Incoming>) -> bool {
    let headers = request.headers();
    headers.get(header::HOST).is_some_and(|host| host == HOST)
        && !headers.contains_key(header::ORIGIN)
        && !headers.contains_key("sec-fetch-site")
}

async fn page(request: Request<Incoming>, console: Arc<Console>, caller: u32) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    match Limited::new(body, pages::LONGEST).collect().await {
        Ok(body) => console.by_socket(caller, Request::from_parts(head, body.to_bytes())).await.map(Full::new),
        Err(_) => {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            response
        }
    }
}

async fn answer(request: Request<Incoming>, edge: Arc<Edge>, caller: u32) -> Response<Full<Bytes>> {
    let (status, body) = match dispatch(request, edge, caller).await {
        Ok(value) => (StatusCode::OK, value),
        Err(refusal) => (refusal.status, serde_json::to_value(refusal.failure).unwrap_or_default()),
    };
    let mut bytes = serde_json::to_vec(&body).unwrap_or_default();
    bytes.push(b'\n');
    let mut response = Response::new(Full::new(bytes.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// `?generation=3`.
fn number(request: &Request<Incoming>) -> Result<Option<u64>, Refusal> {
    let Some(query) = request.uri().query() else { return Ok(None) };
    let wrong = || Refusal::asked(format!("\"{query}\" is no generation"));
    query.strip_prefix("generation=").ok_or_else(wrong)?.parse().map(Some).map_err(|_| wrong())
}

async fn dispatch(request: Request<Incoming>, edge: Arc<Edge>, caller: u32) -> Result<serde_json::Value, Refusal> {
    let author = author(caller);
    let path = request.uri().path().to_owned();
    let Some(noun) = path.strip_prefix("/api/v1/") else { return Err(Refusal::missing("there is nothing here")) };
    let number = number(&request)?;
    match (request.method(), noun) {
        (&Method::GET, "status") => json(edge.status()),
        (&Method::POST, "reload") => blocking(move || edge.reload(&format!("{author}: reload"))).await,
        (&Method::GET, "backup") => blocking(move || edge.handed_out(&author)).await,
        (&Method::GET, "devices") => json(edge.devices()?),
        (&Method::POST, "devices/accept") => {
            let accept: Accept = body(request).await?;
            json(edge.accept_devices(accept)?)
        }
        (&Method::GET, "peers") => json(edge.peers()),
        (&Method::POST, "peers") => {
            let peer: NewPeer = body(request).await?;
            blocking(move || edge.edit_peers(PeerEdit::Add(peer), &author)).await
        }
        (&Method::POST, "peers/import") => {
            let peers: Vec<NewPeer> = body(request).await?;
            blocking(move || edge.edit_peers(PeerEdit::Import(peers), &author)).await
        }
        (&Method::POST, noun) if noun.starts_with("peers/") => {
            let (name, verb) = noun.trim_start_matches("peers/").split_once('/').unwrap_or_default();
            let name = name.to_owned();
            if verb == "confirm-setup" {
                return blocking(move || edge.set_up_confirmation(&name, &author)).await;
            }
            let edit = match verb {
                "rotate" => PeerEdit::Rotate(name, body::<NewKeys>(request).await?),
                "enable" => PeerEdit::Switch(name, Switch::On),
                "disable" => PeerEdit::Switch(name, Switch::Off),
                _ => return Err(Refusal::missing(format!("there is no {} {path}", request.method()))),
            };
            blocking(move || edge.edit_peers(edit, &author)).await
        }
        (&Method::DELETE, noun) if noun.starts_with("peers/") => {
            let name = noun.trim_start_matches("peers/").to_owned();
            blocking(move || edge.edit_peers(PeerEdit::Remove(name), &author)).await
        }
        (&Method::GET, "users") => json(edge.users()),
        (&Method::POST, "users") => {
            let user: users::Listed = body(request).await?;
            blocking(move || edge.edit_users(&UserEdit::Add(user), &author)).await
        }
        (&Method::DELETE, noun) if noun.starts_with("users/") => {
            let name = noun.trim_start_matches("users/").to_owned();
            blocking(move || edge.edit_users(&UserEdit::Remove(name), &author)).await
        }
        (&Method::POST, "rules") => {
            let edit: RuleEdit = body(request).await?;
            blocking(move || edge.edit_rules(&edit, &author)).await
        }
        (&Method::POST, "dns/queries") => {
            let filter = body(request).await?;
            blocking(move || edge.queries(&filter)).await
        }
        (&Method::POST, "dns/summary") => {
            let span = body(request).await?;
            blocking(move || edge.summary(span)).await
        }
        (&Method::GET, "uptime") => json(edge.uptime()?),
        (&Method::POST, "explain") => {
            let curious = body(request).await?;
            json(edge.explain(curious).await?)
        }
        (&Method::POST, "explain/url") => {
            let curious = body(request).await?;
            json(edge.explain_url(&curious)?)
        }
        (&Method::GET, "config/waiting") => json(edge.waiting()),
        (&Method::POST, "config/confirm") => blocking(move || edge.confirm_change(&author)).await,
        (&Method::POST, "config/undo") => blocking(move || edge.take_back(&author)).await,
        (&Method::GET, "config/log") => blocking(move || edge.generations()).await,
        (&Method::GET, "config/show") => blocking(move || edge.show(number)).await,
        (&Method::GET, "config/diff") => blocking(move || edge.diff(number)).await,
        (&Method::POST, "config/rollback") => {
            let number = number.ok_or_else(|| Refusal::asked("which generation?"))?;
            blocking(move || edge.rollback(number, &author)).await
        }
        _ => Err(Refusal::missing(format!("there is no {} {path}", request.method()))),
    }
}

/// Returns how the audit log calls a user of this system.
pub(super) fn author(uid: u32) -> String {
    let user = nix::unistd::User::from_uid(uid.into()).ok().flatten();
    user.map_or_else(|| format!("uid {uid}"), |user| format!("{} (uid {uid})", user.name))
}

async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Result<T, Refusal> {
    let bytes = Limited::new(request.into_body(), BODY).collect().await.map_err(Refusal::asked)?.to_bytes();
    serde_json::from_slice(&bytes).map_err(Refusal::asked)
}

fn json(value: impl Serialize) -> Result<serde_json::Value, Refusal> {
    serde_json::to_value(value).map_err(Refusal::ours)
}

/// Runs what reads files or builds policies beside the runtime.
async fn blocking<T, F>(work: F) -> Result<serde_json::Value, Refusal>
where
    T: Serialize + Send + 'static,
    F: FnOnce() -> Result<T, Refusal> + Send + 'static,
{
    json(tokio::task::spawn_blocking(work).await.map_err(Refusal::ours)??)
}

//! Asks the running process, through its Unix socket.

use std::{io, path::Path, time::Duration};

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::UnixStream;

use crate::{
    app::control::{Failure, HOST, socket},
    cli::Problem,
};

/// A reload with large lists included.
const DEADLINE: Duration = Duration::from_secs(300);
/// Bytes of an answer.
const ANSWER: usize = 64 * 1024 * 1024;

/// Says whether a process answers on the socket of this state folder.
pub(crate) fn is_running(state: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(socket(state)).is_ok()
}

/// Gets a thing.
pub(crate) fn get<T: DeserializeOwned>(state: &Path, path: &str) -> anyhow::Result<T> {
    call(state, Method::GET, path, Bytes::new())
}

/// Has something done.
pub(crate) fn post<T: DeserializeOwned>(state: &Path, path: &str, body: &impl Serialize) -> anyhow::Result<T> {
    call(state, Method::POST, path, serde_json::to_vec(body)?.into())
}

/// Has something removed.
pub(crate) fn delete<T: DeserializeOwned>(state: &Path, path: &str) -> anyhow::Result<T> {
    call(state, Method::DELETE, path, Bytes::new())
}

fn call<T: DeserializeOwned>(state: &Path, method: Method, path: &str, body: Bytes) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let exchange = async { tokio::time::timeout(DEADLINE, exchange(state, method, path, body)).await };
    let (status, answer) = runtime.block_on(exchange).context("the running process does not answer")??;
    if status.is_success() {
        return serde_json::from_slice(&answer).context("the running process is of another version");
    }
    let failure: Failure = serde_json::from_slice(&answer).with_context(|| format!("refused with {status}"))?;
    if failure.problems.is_empty() {
        bail!(failure.error);
    }
    Err(anyhow!(Problem(failure.problems.join("\n"))).context(failure.error))
}

async fn exchange(state: &Path, method: Method, path: &str, body: Bytes) -> anyhow::Result<(StatusCode, Bytes)> {
    let path_of_socket = socket(state);
    let stream = UnixStream::connect(&path_of_socket).await.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            anyhow!("no hearthgate is running on the state in {} (see --state)", state.display())
        }
        io::ErrorKind::PermissionDenied => {
            anyhow!("{} belongs to another user: call this as that user or as root", path_of_socket.display())
        }
        _ => anyhow!("{}: {error}", path_of_socket.display()),
    })?;
    let (mut requests, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, HOST)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(body))?;
    let exchange = async {
        let response = requests.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER).collect().await.map_err(|error| anyhow!(error))?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(connection, exchange);
    tokio::select! {
        done = &mut exchange => done,
        // The other end closes after its answer; what came is still read.
        _ = &mut connection => exchange.await,
    }
}

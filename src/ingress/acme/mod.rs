//! Certificates of public CAs (RFC 8555), kept good without anybody's work.
//!
//! One task looks at every order of the policy in force: [`schedule`] says what is next, `order` does it,
//! `kept` remembers how far it is. Orders come one after the other, so there is never more than one for a name.
//! What was obtained is written to the state folder and swapped in; connections go on.

mod answers;
pub(super) mod kept;
mod order;
mod schedule;

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use instant_acme::CertificateIdentifier;
use tokio::time::{sleep, timeout};

pub(super) use self::answers::Answers;
use self::{
    kept::Progress,
    order::{Ca, Fault, Terms, Tools},
    schedule::{Life, Next},
};
use crate::{
    ingress::{
        Acme, Order, Policy, Shared,
        certs::{Certificate, CertificateError, Loaded, seconds},
    },
    supervise::{Phase, Stop},
};

/// From beginning to end of one attempt.
const ATTEMPT: Duration = Duration::from_secs(10 * 60);
/// How long the CA is left alone where the state folder cannot be written.
const UNKEPT: u64 = 3600;
/// How often everything is looked at, if nothing is due before.
const LOOK: u64 = 60;
/// How often an attempt is begun anew that failed by nonces alone.
const NONCES: usize = 4;

/// Looks after the orders of whatever policy is in force, until told to stop.
pub(super) async fn run(shared: Arc<Shared>, stop: Stop) -> Result<(), String> {
    let mut reloaded = shared.watch_generation();
    loop {
        if let Some(clock) = shared.clock.get() {
            // A certificate looks expired to a clock that is wrong, and the CA's own looks so, too.
            tokio::select! {
                () = clock.sound() => {}
                () = stop.reached(Phase::Drain) => return Ok(()),
            }
        }
        let policy = shared.policy.load_full();
        let mut rest = LOOK;
        for (order, certificate) in &policy.certificates.orders {
            if stop.phase() != Phase::Run || shared.generation() != policy.generation {
                break;
            }
            let now = seconds(SystemTime::now());
            let again = look_after(&shared, &policy, order, certificate).await;
            rest = rest.min(again.saturating_sub(now).max(1));
        }
        drop(policy);
        tokio::select! {
            () = sleep(Duration::from_secs(rest)) => {}
            _ = reloaded.changed() => {}
            () = stop.reached(Phase::Drain) => return Ok(()),
        }
    }
}

/// Does what is next for one order; returns the second at which to look again.
async fn look_after(shared: &Arc<Shared>, policy: &Policy, order: &Order, certificate: &Certificate) -> u64 {
    let state = &policy.config.state;
    let Some(acme) = policy.config.acme.get(order.acme) else { return u64::MAX };
    let now = seconds(SystemTime::now());
    let issued = certificate.issued();
    let life = issued.as_ref().map(|issued| Life { not_before: issued.not_before, not_after: issued.not_after });
    let mut progress = kept::progress(state, order);
    let named = |url: &String| acme.directories.iter().any(|directory| directory.url == *url);
    let wanted = progress.directory.as_ref().is_some_and(named) && progress.profile == acme.profile;
    let again = match schedule::next(&progress, life, wanted, now) {
        Next::Wait(until) => {
            if let Some(problem) = &progress.problem {
                certificate.fail(problem.clone());
            }
            certificate.plan_next(match life {
                Some(life) if wanted => schedule::due(&progress, life),
                _ => until,
            });
            return until;
        }
        Next::Window => {
            let Some(issued) = issued else { return now };
            ask_window(shared, policy, acme, &issued, &mut progress).await;
            now
        }
        Next::Order => {
            let issued = issued.filter(|_| wanted);
            attempt(shared, policy, (order, acme), certificate, issued.as_deref(), &mut progress).await;
            now
        }
    };
    if let Err(error) = kept::keep_progress(state, order, &progress) {
        tracing::error!(%order, %error, "how far an order is cannot be kept");
        // Nor would it be remembered that the CA was asked.
        return again.max(now + UNKEPT);
    }
    again
}

/// Asks the CA when it wants the certificate to be renewed, and chooses a moment.
async fn ask_window(shared: &Arc<Shared>, policy: &Policy, acme: &Acme, issued: &Loaded, progress: &mut Progress) {
    let now = seconds(SystemTime::now());
    // Whatever comes of it, it is not asked for again at once.
    progress.ask_window_at = now + schedule::window_again(0);
    let Some(directory) = acme.directories.iter().find(|one| Some(&one.url) == progress.directory.as_ref()) else {
        return;
    };
    let Some(identifier) = identifier(issued) else {
        progress.ask_window_at = u64::MAX;
        return;
    };
    let asking =
        async { Ca::open(&policy.config.state, directory, acme, &shared.lookup).await?.window(&identifier).await };
    match timeout(ATTEMPT, asking).await {
        Ok(Ok(Some((start, end, again)))) => {
            progress.ask_window_at = now + schedule::window_again(again);
            if progress.window_end != Some(end) || progress.renew_at.is_none() {
                progress.window_end = Some(end);
                progress.renew_at = Some(schedule::within(start, end, schedule::dice()));
            }
        }
        Ok(Ok(None)) => progress.ask_window_at = now + schedule::window_again(u64::MAX),
        Ok(Err(fault)) => tracing::debug!(fault = fault.what, "no window for a renewal"),
        Err(_) => {}
    }
}

/// Tries once to get a certificate, at each directory that is needed, and notes what came of it.
async fn attempt(
    shared: &Arc<Shared>,
    policy: &Policy,
    (order, acme): (&Order, &Acme),
    certificate: &Certificate,
    replaced: Option<&Loaded>,
    progress: &mut Progress,
) {
    // The next attempt is decided on before this one: a process that dies meanwhile has failed.
    progress.failures = progress.failures.saturating_add(1);
    progress.not_before = seconds(SystemTime::now()) + schedule::back_off(progress.failures, None, schedule::dice());
    if let Err(error) = kept::keep_progress(&policy.config.state, order, progress) {
        tracing::error!(%order, %error, "the state folder cannot be written: nothing is ordered");
        return certificate.fail(format!("the state folder cannot be written: {error}"));
    }
    tracing::info!(%order, attempt = progress.failures, "ordering a certificate");
    let mut last = Fault::ours("no directory");
    for directory in &acme.directories {
        let replaces = replaced.filter(|_| progress.directory.as_ref() == Some(&directory.url)).and_then(identifier);
        match obtain(shared, policy, (order, acme), directory, replaces).await {
            Ok(loaded) => {
                let life = Life { not_before: loaded.not_before, not_after: loaded.not_after };
                let renewal = schedule::renewal(life, schedule::dice());
                *progress = Progress {
                    directory: Some(directory.url.clone()),
                    profile: acme.profile.clone(),
                    renew_at: Some(renewal),
                    ..Progress::default()
                };
                certificate.plan_next(renewal);
                tracing::info!(%order, directory = directory.url, not_after = life.not_after, "a certificate was issued");
                shared.series.order("issued");
                return certificate.swap(loaded);
            }
            Err(fault) => {
                tracing::warn!(%order, directory = directory.url, problem = fault.what, "no certificate");
                let elsewhere = fault.of_the_ca;
                last = fault;
                if !elsewhere {
                    break;
                }
            }
        }
    }
    shared.series.order("failed");
    let wait = schedule::back_off(progress.failures, last.retry_after, schedule::dice());
    progress.not_before = seconds(SystemTime::now()) + wait;
    progress.problem = Some(last.what.clone());
    certificate.fail(last.what);
}

/// Gets a certificate at one directory and keeps it.
async fn obtain(
    shared: &Arc<Shared>,
    policy: &Policy,
    (order, acme): (&Order, &Acme),
    directory: &crate::ingress::AcmeDirectory,
    mut replaces: Option<CertificateIdentifier<'static>>,
) -> Result<Loaded, Fault> {
    let state = &policy.config.state;
    let mut left = NONCES;
    let pair = loop {
        let ca = Ca::open(state, directory, acme, &shared.lookup).await?;
        let terms = Terms { order, acme, replaces: replaces.clone() };
        let tools = Tools { answers: &shared.answers, reach: &shared.reach, crypto: &shared.provider };
        match ca.fulfil(terms, &tools, ATTEMPT).await {
            Ok(pair) => break pair,
            Err(fault) if left == 0 => return Err(fault),
            Err(fault) if fault.account => {
                kept::forget_account(state, &directory.url, acme).map_err(|error| Fault::ours(error.to_string()))?;
            }
            Err(fault) if replaces.is_some() && fault.replaced => replaces = None,
            Err(fault) if fault.nonce => {}
            Err(fault) => return Err(fault),
        }
        left -= 1;
    };
    let wrong = |error: CertificateError| Fault { of_the_ca: true, ..Fault::ours(error.to_string()) };
    let loaded = Loaded::new(&pair, std::path::Path::new(&order.to_string()), &shared.provider).map_err(wrong)?;
    kept::keep_certificate(state, order, &pair)
        .map_err(|error| Fault::ours(format!("the certificate cannot be kept: {error}")))?;
    Ok(loaded)
}

fn identifier(loaded: &Loaded) -> Option<CertificateIdentifier<'static>> {
    let leaf = loaded.key.cert.first()?;
    CertificateIdentifier::try_from(leaf).ok().map(CertificateIdentifier::into_owned)
}

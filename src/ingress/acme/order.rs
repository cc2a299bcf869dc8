//! One order, from the account to the certificate.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use hickory_proto::rr::Name;
use hyper::{Request, header};
use instant_acme::{
    Account, AccountCredentials, AuthorizationStatus, BodyWrapper, BytesResponse, CertificateIdentifier, ChallengeType,
    Error, ExternalAccountKey, HttpClient, Identifier, NewAccount, NewOrder, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::CryptoProvider;
use tokio::time::{Instant, sleep, timeout};

use super::{answers::Answers, kept};
use crate::{
    https,
    ingress::{Acme, AcmeDirectory, Challenge, HostPattern, Order, ca::Pair, certs::seconds},
    provider::{Provider, Reach},
    public_dns::Zone,
};

/// How long a CA may take to check, and to sign.
const POLL: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(500)).timeout(Duration::from_secs(120));

/// How long the servers of a zone may take to show a record.
const PROPAGATION: Duration = Duration::from_secs(5 * 60);
/// How long a provider may take to take it away.
const CLEANUP: Duration = Duration::from_secs(150);

/// What an order needs of the house.
pub(super) struct Tools<'a> {
    pub(super) answers: &'a Answers,
    pub(super) reach: &'a Reach,
    pub(super) crypto: &'a Arc<CryptoProvider>,
}

/// Why an order was not fulfilled.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) what: String,
    /// Another directory may do better.
    pub(super) of_the_ca: bool,
    /// It was refused for its nonce alone, again and again: nothing is wrong.
    pub(super) nonce: bool,
    /// The CA knows our account no more.
    pub(super) account: bool,
    /// The certificate that is replaced was the trouble.
    pub(super) replaced: bool,
    /// How many seconds the CA wants to be left alone.
    pub(super) retry_after: Option<u64>,
}

impl Fault {
    pub(super) fn ours(what: impl Into<String>) -> Self {
        let what = what.into();
        Self { what, of_the_ca: false, nonce: false, account: false, replaced: false, retry_after: None }
    }
}

/// A directory with the account that we have there.
pub(super) struct Ca {
    account: Account,
    retry_after: Arc<AtomicU64>,
}

/// What an order is made with.
pub(super) struct Terms<'a> {
    pub(super) order: &'a Order,
    pub(super) acme: &'a Acme,
    /// The certificate that it replaces, for a CA that wants to know.
    pub(super) replaces: Option<CertificateIdentifier<'static>>,
}

impl Ca {
    /// Opens the account at a directory, or makes one.
    pub(super) async fn open(
        state: &std::path::Path,
        directory: &AcmeDirectory,
        acme: &Acme,
        lookup: &crate::lookup::Lookup,
    ) -> Result<Self, Fault> {
        let client = https::Client::new(directory.ca.as_deref(), lookup.clone());
        let client = client.map_err(|error| Fault::ours(error.to_string()))?;
        let retry_after = Arc::new(AtomicU64::new(0));
        let builder =
            || Account::builder_with_http(Box::new(Http { client: client.clone(), retry_after: retry_after.clone() }));
        let fault = |error| fault(&error, &retry_after);
        let kept = kept::account(state, &directory.url, acme);
        let kept = kept.and_then(|kept| serde_json::from_slice::<AccountCredentials>(&kept).ok());
        let account = match kept {
            Some(credentials) => builder().from_credentials(credentials).await.map_err(fault)?,
            None => {
                let contact: Vec<String> = acme.email.iter().map(|email| format!("mailto:{email}")).collect();
                let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
                let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
                let first = acme.directories.first() == Some(directory);
                let binding = acme.eab.as_ref().filter(|_| first);
                let binding = binding.map(|eab| ExternalAccountKey::new(eab.kid.clone(), &eab.key));
                let made = builder().create(&new, directory.url.clone(), binding.as_ref()).await;
                let (account, credentials) = made.map_err(fault)?;
                let credentials = serde_json::to_vec(&credentials).map_err(|error| Fault::ours(error.to_string()))?;
                kept::keep_account(state, &directory.url, acme, &credentials)
                    .map_err(|error| Fault::ours(format!("the account cannot be kept: {error}")))?;
                tracing::info!(directory = directory.url, "made an account");
                account
            }
        };
        Ok(Self { account, retry_after })
    }

    /// Asks when a certificate should be renewed (RFC 9773): a window, and in how many seconds to ask again.
    /// Nothing if the CA does not say such things.
    pub(super) async fn window(&self, of: &CertificateIdentifier<'_>) -> Result<Option<(u64, u64, u64)>, Fault> {
        match self.account.renewal_info(of).await {
            Ok((info, again)) => {
                let second = |time: i64| u64::try_from(time).unwrap_or(0);
                let (start, end) = (info.suggested_window.start, info.suggested_window.end);
                Ok(Some((second(start.unix_timestamp()), second(end.unix_timestamp()), again.as_secs())))
            }
            Err(Error::Unsupported(_)) => Ok(None),
            Err(error) => Err(fault(&error, &self.retry_after)),
        }
    }

    /// Gets a certificate, within a time. What was put into the DNS for it is taken away, however it ends.
    pub(super) async fn fulfil(&self, terms: Terms<'_>, tools: &Tools<'_>, limit: Duration) -> Result<Pair, Fault> {
        let mut published = Vec::new();
        let provider = terms.acme.provider.as_ref();
        let pair = timeout(limit, self.work(terms, tools, &mut published)).await;
        for (zone, text) in published {
            let cleaned = match provider {
                Some(provider) => timeout(CLEANUP, provider.cleanup(tools.reach, &zone, &text)).await,
                None => continue,
            };
            match cleaned {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(name = %zone.name, %error, "a record of a challenge stays"),
                Err(_) => tracing::warn!(name = %zone.name, "a record of a challenge stays: the provider is silent"),
            }
        }
        pair.unwrap_or_else(|_| Err(Fault { of_the_ca: true, ..Fault::ours("it takes too long") }))
    }

    async fn work(
        &self,
        terms: Terms<'_>,
        tools: &Tools<'_>,
        published: &mut Vec<(Zone, String)>,
    ) -> Result<Pair, Fault> {
        let fault = |error| fault(&error, &self.retry_after);
        let name = terms.order.name.to_string();
        let identifiers = [Identifier::Dns(name.clone())];
        let mut new = NewOrder::new(&identifiers);
        if let Some(profile) = &terms.acme.profile {
            new = new.profile(profile);
        }
        if let Some(replaces) = terms.replaces {
            new = new.replaces(replaces);
        }
        let mut order = self.account.new_order(&new).await.map_err(fault)?;
        // What is answered, until the CA has looked.
        let mut given = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(fault)?;
            match authorization.status {
                AuthorizationStatus::Valid => continue,
                AuthorizationStatus::Pending => {}
                status => return Err(Fault::ours(format!("an authorization is {status:?}"))),
            }
            let kind = match terms.acme.challenge {
                Challenge::Http01 => ChallengeType::Http01,
                Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
                Challenge::Dns01 => ChallengeType::Dns01,
            };
            let challenge = authorization.challenge(kind);
            let mut challenge = challenge.ok_or_else(|| Fault::ours("the CA does not offer this challenge"))?;
            let proof = challenge.key_authorization();
            match (terms.acme.challenge, &terms.order.name) {
                (Challenge::Http01, HostPattern::Exact(host)) => {
                    given.push(tools.answers.give_http(host.as_str(), &challenge.token, proof.as_str()));
                }
                (Challenge::TlsAlpn01, HostPattern::Exact(host)) => {
                    let answer = tools.answers.give_tls(host.as_str(), proof.digest().as_ref(), tools.crypto);
                    given.push(answer.map_err(Fault::ours)?);
                }
                (Challenge::Dns01, HostPattern::Exact(host) | HostPattern::Wildcard(host)) => {
                    let provider = terms.acme.provider.as_ref();
                    let provider = provider.ok_or_else(|| Fault::ours("no provider is named for dns-01"))?;
                    publish(provider, tools.reach, host.as_str(), proof.dns_value(), published).await?;
                }
                (_, HostPattern::Wildcard(_) | HostPattern::Any) => {
                    return Err(Fault::ours("a wildcard needs challenge = \"dns-01\""));
                }
            }
            challenge.set_ready().await.map_err(fault)?;
        }
        match order.poll_ready(&POLL).await {
            Ok(OrderStatus::Invalid) => return Err(Fault::ours(why_invalid(&mut order).await)),
            // The order says less than its challenge.
            Err(Error::Api(problem)) if order.state().status == OrderStatus::Invalid => {
                let why = why_invalid(&mut order).await;
                return Err(Fault::ours(if why.is_empty() { problem.to_string() } else { why }));
            }
            ready => ready.map_err(fault)?,
        };
        drop(given);
        let (key, request) = request(&name).map_err(|error| Fault::ours(error.to_string()))?;
        order.finalize_csr(&request).await.map_err(fault)?;
        let certificate = order.poll_certificate(&POLL).await.map_err(fault)?;
        Ok(Pair { certificate, key })
    }
}

/// Puts the proof into the DNS and waits until the zone's own servers show it.
async fn publish(
    provider: &Provider,
    reach: &Reach,
    host: &str,
    text: String,
    published: &mut Vec<(Zone, String)>,
) -> Result<(), Fault> {
    let name = Name::from_ascii(format!("_acme-challenge.{host}.")).map_err(|error| Fault::ours(error.to_string()))?;
    let zone = reach.public.zone_of(&name).await;
    let zone = zone.map_err(|error| Fault::ours(format!("the zone of {name} is not found: {error}")))?;
    // Before it is there: what is half done is taken away, too.
    published.push((zone.clone(), text.clone()));
    provider.present(reach, &zone, &text).await.map_err(|error| Fault::ours(error.to_string()))?;
    let begun = Instant::now();
    let mut wait = Duration::from_millis(500);
    loop {
        match zone.shows_text(&text).await {
            Ok(true) => return Ok(()),
            shown if begun.elapsed() >= PROPAGATION => {
                let why = shown.err().map_or("they do not show it".to_owned(), |error| error.to_string());
                return Err(Fault::ours(format!("the servers of {} after {PROPAGATION:?}: {why}", zone.origin)));
            }
            _ => {
                sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(10));
            }
        }
    }
}

fn request(name: &str) -> Result<(String, Vec<u8>), rcgen::Error> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let request = params.serialize_request(&key)?;
    Ok((key.serialize_pem(), request.der().to_vec()))
}

/// Returns what the CA says of the challenge that failed.
async fn why_invalid(order: &mut instant_acme::Order) -> String {
    let mut why = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if let Ok(state) = authorization.refresh().await {
            why.extend(state.challenges.iter().filter_map(|challenge| challenge.error.as_ref()).map(words));
        }
    }
    why.join("; ")
}

fn words(problem: &instant_acme::Problem) -> String {
    let kind = problem.r#type.as_deref().unwrap_or("error").rsplit(':').next().unwrap_or_default();
    let detail = problem.detail.as_deref().unwrap_or("without a reason");
    // A CA quotes what it was answered: that is kept short, and in one line.
    let clean = detail.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    format!("{kind}: {}", clean.take(400).collect::<String>())
}

fn fault(error: &Error, retry_after: &AtomicU64) -> Fault {
    let at = retry_after.swap(0, Ordering::Relaxed);
    let retry_after = at.checked_sub(seconds(SystemTime::now())).filter(|wait| *wait > 0);
    let kind = |problem: &instant_acme::Problem, kind: &str| {
        problem.r#type.as_deref().is_some_and(|full| full.rsplit(':').next() == Some(kind))
    };
    match error {
        Error::Api(problem) => Fault {
            what: words(problem),
            of_the_ca: problem.status.is_none_or(|status| status >= 500 || status == 429 || status == 403)
                || kind(problem, "rateLimited"),
            nonce: kind(problem, "badNonce"),
            account: kind(problem, "accountDoesNotExist"),
            replaced: kind(problem, "alreadyReplaced"),
            retry_after,
        },
        // A directory that has forgotten how, or a server that does not say the field again (RFC 9773 §5).
        Error::Unsupported(_) => Fault { replaced: true, retry_after, ..Fault::ours(error.to_string()) },
        Error::Other(why) if why.to_string().starts_with("replaces field mismatch") => {
            Fault { replaced: true, retry_after, ..Fault::ours(error.to_string()) }
        }
        Error::Timeout(_) => Fault { of_the_ca: true, retry_after, ..Fault::ours("the CA takes too long") },
        other => Fault { of_the_ca: true, retry_after, ..Fault::ours(other.to_string()) },
    }
}

/// The library's way to our own client.
struct Http {
    client: https::Client,
    /// Until when the CA wants to be left alone, in seconds since 1970; 0 if it did not say so.
    retry_after: Arc<AtomicU64>,
}

impl HttpClient for Http {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let (client, retry_after) = (self.client.clone(), self.retry_after.clone());
        Box::pin(async move {
            use http_body_util::BodyExt as _;

            let (parts, body) = request.into_parts();
            let Ok(body) = body.collect().await;
            let request = Request::from_parts(parts, body.to_bytes());
            let answer = client.ask(request).await.map_err(|error| Error::Other(Box::new(error)))?;
            let status = answer.status();
            if status.is_client_error() || status.is_server_error() {
                let wait = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
                if let Some(at) = wait.and_then(when) {
                    retry_after.store(at, Ordering::Relaxed);
                }
                // RFC 8555 §6.7: errors are problem documents. What is none comes from something in between.
                if serde_json::from_slice::<instant_acme::Problem>(answer.body()).is_err() {
                    return Err(Error::Other(format!("the directory's server answers {status}").into()));
                }
            }
            Ok(BytesResponse::from(answer.map(http_body_util::Full::new)))
        })
    }
}

/// Reads a Retry-After: seconds from now, or a date.
fn when(text: &str) -> Option<u64> {
    match text.trim().parse::<u64>() {
        Ok(wait) => Some(seconds(SystemTime::now()).saturating_add(wait)),
        Err(_) => httpdate::parse_http_date(text.trim()).ok().map(seconds),
    }
}

//! Names and passwords (RFC 7617).
//!
//! A check of a password is costly on purpose, so only one is done at a time, in a thread of its own, and what was
//! right stays so for a while without another.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use argon2::{Argon2, PasswordVerifier};
use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::{
    HeaderMap, StatusCode,
    header::{self, HeaderName, HeaderValue},
};
use sha2::{Digest, Sha256};
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    ingress::{Change, serve::Answer},
    limit::Client,
};

/// How long a password that was right is believed without a check.
const KEPT: Duration = Duration::from_secs(10 * 60);
/// Passwords that are believed so.
const MOST_KEPT: usize = 256;
/// Checks that wait for the one that is being done, in all and of one client, and how long.
const MOST_WAITING: usize = 32;
const MOST_WAITING_OF_ONE: usize = 4;
const PATIENCE: Duration = Duration::from_secs(5);
/// What servers behind take for somebody's groups and name: only somebody who was asked may say that.
const IDENTITY: [&str; 3] = ["remote-groups", "remote-name", "remote-email"];
/// Longer names and passwords are nobody's.
const LONGEST: usize = 512;

/// Who may come in by name and password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Basic {
    /// What the browser shows beside its question.
    pub realm: String,
    /// Names and hashes; never empty.
    pub users: Vec<(String, PasswordHash)>,
}

/// A hash of a password, in the form of argon2 (PHC) or bcrypt.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(String);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash")
    }
}

impl PasswordHash {
    /// Reads a hash; `None` if it is of no kind that is known.
    pub fn parse(text: &str) -> Option<Self> {
        let known = match text.split('$').nth(1)? {
            "argon2id" | "argon2i" | "argon2d" => argon2::PasswordHash::new(text).is_ok(),
            "2a" | "2b" | "2y" => text.len() == 60,
            _ => false,
        };
        known.then(|| Self(text.to_owned()))
    }

    fn fits(&self, password: &[u8]) -> bool {
        match self.0.starts_with("$argon2") {
            true => Argon2::default().verify_password(password, self.0.as_str()).is_ok(),
            false => bcrypt::verify(password, &self.0).unwrap_or(false),
        }
    }
}

/// What was checked lately, and the one place where checks are done.
#[derive(Debug)]
pub(in crate::ingress) struct Passwords {
    /// So that what is kept means nothing to anybody else.
    salt: [u8; 32],
    right: Mutex<HashMap<[u8; 32], Instant>>,
    place: Arc<Semaphore>,
    /// Whose checks wait or are done, each as often as it has some.
    waiting: Mutex<Vec<Option<Client>>>,
}

/// A place among the checks that wait.
struct Waiting<'a> {
    passwords: &'a Passwords,
    client: Option<Client>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut waiting = self.passwords.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = waiting.iter().position(|client| *client == self.client) {
            waiting.swap_remove(at);
        }
    }
}

impl Passwords {
    pub(in crate::ingress) fn new() -> Self {
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).expect("the system has a random source");
        Self { salt, right: Mutex::default(), place: Arc::new(Semaphore::new(1)), waiting: Mutex::default() }
    }

    /// Lets a client's check wait; `None` if too many do. Clients that cannot be told apart share all places.
    fn wait(&self, client: Option<Client>) -> Option<Waiting<'_>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let of_one = waiting.iter().filter(|other| client.is_some() && **other == client).count();
        if of_one >= MOST_WAITING_OF_ONE || waiting.len() >= MOST_WAITING {
            return None;
        }
        waiting.push(client);
        Some(Waiting { passwords: self, client })
    }

    fn key(&self, route: &str, hash: &PasswordHash, name: &str, password: &[u8]) -> [u8; 32] {
        let mut digest = Sha256::new_with_prefix(self.salt);
        for part in [route.as_bytes(), hash.0.as_bytes(), name.as_bytes(), password] {
            digest.update((part.len() as u64).to_be_bytes());
            digest.update(part);
        }
        digest.finalize().into()
    }

    fn knows(&self, key: &[u8; 32], now: Instant) -> bool {
        let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        right.get(key).is_some_and(|until| *until > now)
    }

    fn keep(&self, key: [u8; 32], now: Instant) {
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        right.retain(|_, until| *until > now);
        if right.len() < MOST_KEPT {
            right.insert(key, now + KEPT);
        }
    }
}

/// Looks for a name and a password that are right; what the server behind is told then.
pub(super) async fn check(
    passwords: &Passwords,
    client: Option<Client>,
    route: &str,
    basic: &Basic,
    headers: &HeaderMap,
) -> Result<Change, Answer> {
    let refused = || challenge(&basic.realm);
    let Some((name, password)) = credentials(headers) else { return Err(refused()) };
    let user = basic.users.iter().find(|(user, _)| *user == name);
    // A name that is nobody's costs as much as one that is somebody's.
    let (_, hash) = user.or(basic.users.first()).expect("there are users");
    let key = passwords.key(route, hash, &name, &password);
    if user.is_none() || !passwords.knows(&key, Instant::now()) {
        let busy = || Answer::fixed(StatusCode::SERVICE_UNAVAILABLE);
        let _waiting = passwords.wait(client).ok_or_else(busy)?;
        let place = timeout(PATIENCE, passwords.place.clone().acquire_owned()).await;
        let place = place.map_err(|_| busy())?.expect("the semaphore is never closed");
        let hash = hash.clone();
        let fits = tokio::task::spawn_blocking(move || {
            // Held until the check is done, also if nobody waits for it any more.
            let _place = place;
            hash.fits(&password)
        });
        if !fits.await.unwrap_or(false) || user.is_none() {
            return Err(refused());
        }
        passwords.keep(key, Instant::now());
    }
    let told = HeaderValue::from_str(&name).ok();
    let remote_user = HeaderName::from_static("remote-user");
    Ok(Change {
        // The password was for us.
        remove: [header::AUTHORIZATION, remote_user.clone()]
            .into_iter()
            .chain(IDENTITY.map(HeaderName::from_static))
            .collect(),
        set: told.map(|name| (remote_user, name)).into_iter().collect(),
        add: Vec::new(),
    })
}

fn credentials(headers: &HeaderMap) -> Option<(String, Vec<u8>)> {
    let said = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = said.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") || token.len() > LONGEST * 2 {
        return None;
    }
    let pair = STANDARD.decode(token.trim_ascii()).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    let (name, password) = pair.split_at(colon);
    let name = String::from_utf8(name.to_vec()).ok()?;
    (pair.len() <= LONGEST).then(|| (name, password[1..].to_vec()))
}

fn challenge(realm: &str) -> Answer {
    let mut answer = Answer::fixed(StatusCode::UNAUTHORIZED);
    let question = format!("Basic realm=\"{}\", charset=\"UTF-8\"", realm.replace(['"', '\\'], ""));
    if let Ok(question) = HeaderValue::from_str(&question) {
        answer.headers.insert(header::WWW_AUTHENTICATE, question);
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "secret", by bcrypt with the smallest cost.
    fn hash() -> PasswordHash {
        PasswordHash::parse(&bcrypt::hash("secret", 4).unwrap()).unwrap()
    }

    fn said(name: &str, password: &str) -> HeaderMap {
        let token = STANDARD.encode(format!("{name}:{password}"));
        [(header::AUTHORIZATION, format!("Basic {token}").parse().unwrap())].into_iter().collect()
    }

    #[tokio::test]
    async fn the_right_password_is_told_upstream_without_itself() {
        let passwords = Passwords::new();
        let basic = Basic { realm: "house".into(), users: vec![("alice".into(), hash())] };

        let change = check(&passwords, None, "route", &basic, &said("alice", "secret")).await.unwrap();
        let again = check(&passwords, None, "route", &basic, &said("alice", "secret")).await;

        assert!(change.replaces("authorization"));
        assert_eq!(change.value("remote-user").unwrap(), "alice");
        assert!(again.is_ok());
    }

    #[tokio::test]
    async fn everything_else_is_asked_again() {
        let passwords = Passwords::new();
        let basic = Basic { realm: "ho\"use".into(), users: vec![("alice".into(), hash())] };

        for headers in [
            HeaderMap::new(),
            said("alice", "Secret"),
            said("bob", "secret"),
            said("", ""),
            [(header::AUTHORIZATION, HeaderValue::from_static("Bearer secret"))].into_iter().collect(),
            [(header::AUTHORIZATION, HeaderValue::from_static("Basic !!!"))].into_iter().collect(),
        ] {
            let answer = check(&passwords, None, "route", &basic, &headers).await.unwrap_err();

            assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
            assert_eq!(answer.headers[header::WWW_AUTHENTICATE], "Basic realm=\"house\", charset=\"UTF-8\"");
        }
    }

    #[test]
    fn one_client_leaves_places_for_the_others() {
        let passwords = Passwords::new();
        let client = |text: &str| Some(Client::of(text.parse().unwrap()));

        let held: Vec<_> = (0..100).filter_map(|_| passwords.wait(client("203.0.113.1"))).collect();
        let other = passwords.wait(client("203.0.113.2"));

        assert_eq!(held.len(), MOST_WAITING_OF_ONE);
        assert!(other.is_some());
        drop(held);
        assert!(passwords.wait(client("203.0.113.1")).is_some());
        drop(other);
        let masked: Vec<_> = (0..100).filter_map(|_| passwords.wait(None)).collect();
        assert_eq!(masked.len(), MOST_WAITING);
    }

    #[test]
    fn hashes_of_unknown_kinds_are_none() {
        let argon2 = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$RdescudvJCsgt3ub+b27SBa4jvjmF4hPMGPrEJ9zT0g";

        assert!(PasswordHash::parse(argon2).is_some());
        for wrong in ["secret", "", "$1$abc$def", "$argon2id$", "$2y$10$short"] {
            assert!(PasswordHash::parse(wrong).is_none(), "{wrong}");
        }
    }
}

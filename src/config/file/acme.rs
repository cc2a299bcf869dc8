//! `[ingress.acme]`: certificates of public CAs. It may be written several times.

use std::path::PathBuf;

use base64::{
    Engine,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use crate::{
    config::{
        file::{Table, route::host_pattern},
        problems::{About, At, Wrong},
        value::{self, Secret},
    },
    ingress::{Challenge, HostPattern},
};

/// The directories that have a name here.
const DIRECTORIES: [(&str, &str); 2] = [
    ("letsencrypt", "https://acme-v02.api.letsencrypt.org/directory"),
    ("letsencrypt-staging", "https://acme-staging-v02.api.letsencrypt.org/directory"),
];

/// `[ingress.acme]` as written.
pub(crate) struct Acme {
    pub(crate) about: About,
    pub(crate) hosts: Vec<At<HostPattern>>,
    pub(crate) email: Option<String>,
    /// Their URLs.
    pub(crate) directories: Vec<At<String>>,
    pub(crate) ca: Option<At<PathBuf>>,
    pub(crate) challenge: At<Challenge>,
    pub(crate) provider: Option<At<super::Provider>>,
    pub(crate) profile: Option<String>,
    pub(crate) eab: Option<Eab>,
}

/// `eab` as written.
pub(crate) struct Eab {
    pub(crate) kid: String,
    pub(crate) key: At<Secret>,
}

impl Acme {
    pub(crate) fn read(table: &Table<'_>) -> Self {
        let default = || vec![At { value: DIRECTORIES[0].1.to_owned(), at: table.at }];
        let directories = table.list("directory", directory);
        if directories.as_ref().is_some_and(Vec::is_empty) {
            let hint = "write \"letsencrypt\", or the URL of another directory";
            table.report.error(table.place("directory"), &table.about, "\"directory\" names none", hint);
        }
        let challenges =
            [Challenge::Http01, Challenge::TlsAlpn01, Challenge::Dns01].map(|challenge| (challenge.name(), challenge));
        let challenge = table.word("challenge", &challenges);
        Self {
            about: table.about.clone(),
            hosts: table.list("hosts", host_pattern).unwrap_or_default(),
            email: table.parsed("email", email).map(|email| email.value),
            directories: directories.unwrap_or_else(default),
            ca: table.string("ca").map(|path| path.map(PathBuf::from)),
            challenge: table.or(challenge, Challenge::Http01),
            provider: super::Provider::read(table),
            profile: table.parsed("profile", value::label).map(|profile| profile.value),
            eab: table.table("eab", "ingress.acme.eab").and_then(|eab| Eab::read(&eab)),
        }
    }
}

impl Eab {
    fn read(table: &Table<'_>) -> Option<Self> {
        let (kid, key) = (table.string("kid"), table.parsed("key", value::secret));
        for key in ["kid", "key"] {
            if !table.has(key) {
                table.missing(
                    key,
                    "write eab = { kid = \"…\", key = \"file:/etc/hearthgate/eab-key\" }, as the CA gave them",
                );
            }
        }
        Some(Self { kid: kid?.value, key: key? })
    }
}

/// Reads the key of an external account: base64 in either alphabet, as the CAs write it.
pub(crate) fn eab_key(text: &str) -> Result<Vec<u8>, Wrong> {
    let config = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let engine = GeneralPurpose::new(&base64::alphabet::URL_SAFE, config);
    let text = text.trim().replace('+', "-").replace('/', "_");
    let wrong = || Wrong::new("the key of the external account is no base64", "write it as the CA gave it");
    engine.decode(text).ok().filter(|key| !key.is_empty()).ok_or_else(wrong)
}

fn directory(text: &str) -> Result<String, Wrong> {
    if let Some((_, url)) = DIRECTORIES.iter().find(|(name, _)| *name == text) {
        return Ok((*url).to_owned());
    }
    let hint = "write \"letsencrypt\", \"letsencrypt-staging\" or the https URL of another directory";
    let wrong = || Wrong::new(format!("\"{text}\" is no directory"), hint);
    let url: hyper::Uri = text.parse().map_err(|_| wrong())?;
    match (url.scheme_str(), url.host()) {
        (Some("https"), Some(_)) => Ok(text.to_owned()),
        _ => Err(wrong()),
    }
}

fn email(text: &str) -> Result<String, Wrong> {
    match text.split_once('@') {
        Some((name, domain))
            if !name.is_empty()
                && domain.contains('.')
                && !text.contains(|letter: char| letter.is_whitespace() || ",?&".contains(letter)) =>
        {
            Ok(text.to_owned())
        }
        _ => Err(Wrong::new(format!("\"{text}\" is no mail address"), "write one, as \"me@home.example\"")),
    }
}

//! `hearthgate ca`: the house's own CA, as phones and browsers are given it.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use clap::{Args, ValueEnum};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use sha2::{Digest, Sha256};
use x509_parser::{extensions::GeneralName, parse_x509_certificate};

use crate::cli::{Running, readable};

#[derive(Args, Debug)]
pub(super) struct Ca {
    /// Write the root's certificate, in the form that the name's end says: .pem, .crt or .der, .mobileconfig
    #[arg(long, value_name = "FILE")]
    export: Option<PathBuf>,
    /// The form, whatever the file is called; without --export, written to standard output
    #[arg(long, value_enum)]
    format: Option<Format>,
    #[command(flatten)]
    running: Running,
}

/// How a certificate is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// Text, for Linux, Firefox and programs
    Pem,
    /// Bytes, for Android and Windows
    Der,
    /// A profile, for iPhones, iPads and Macs
    Mobileconfig,
}

impl Ca {
    pub(super) fn execute(self, state: Option<PathBuf>) -> anyhow::Result<()> {
        let path = self.running.state(state)?.join("ca.pem");
        let root = CertificateDer::from_pem_file(&path)
            .map_err(|error| anyhow!("{}: {error}; the CA is made when a route first needs it", path.display()))?;
        let format = self.format.or_else(|| self.export.as_deref().and_then(by_name));
        match (self.export, format) {
            (Some(file), Some(format)) => {
                std::fs::write(&file, written(&root, format)?).with_context(|| file.display().to_string())?;
                eprintln!("{}", shown(&root)?.trim_end());
                eprintln!("written to {}; compare the fingerprint on the device", file.display());
            }
            (Some(file), None) => {
                bail!("{}: name it .pem, .der, .crt or .mobileconfig, or say --format", file.display())
            }
            (None, Some(format)) => std::io::stdout().write_all(&written(&root, format)?)?,
            (None, None) => print!("{}", shown(&root)?),
        }
        Ok(())
    }
}

fn by_name(file: &Path) -> Option<Format> {
    match file.extension()?.to_str()? {
        "pem" => Some(Format::Pem),
        "der" | "crt" | "cer" => Some(Format::Der),
        "mobileconfig" => Some(Format::Mobileconfig),
        _ => None,
    }
}

/// What somebody compares before he trusts it.
fn shown(root: &CertificateDer<'_>) -> anyhow::Result<String> {
    let (_, parsed) = parse_x509_certificate(root)?;
    let digest = Sha256::digest(root).iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":");
    let mut names = Vec::new();
    if let Ok(Some(constraints)) = parsed.name_constraints() {
        for subtree in constraints.value.permitted_subtrees.iter().flatten() {
            match &subtree.base {
                GeneralName::DNSName(name) => names.push((*name).to_owned()),
                GeneralName::IPAddress(_) if !names.iter().any(|name| name == PRIVATE) => names.push(PRIVATE.into()),
                _ => {}
            }
        }
    }
    Ok(format!(
        "name         {}\nsigns only   {}\nuntil        {}\nSHA-256      {digest}\n",
        name_of(root)?,
        names.join(", "),
        readable(parsed.validity().not_after.timestamp()),
    ))
}

const PRIVATE: &str = "private addresses";

fn name_of(root: &CertificateDer<'_>) -> anyhow::Result<String> {
    let (_, parsed) = parse_x509_certificate(root)?;
    let name = parsed.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    Ok(name.unwrap_or("the house's CA").to_owned())
}

fn written(root: &CertificateDer<'_>, format: Format) -> anyhow::Result<Vec<u8>> {
    let lines = |indent: &str| {
        let text = BASE64_STANDARD.encode(root);
        let lines = text.as_bytes().chunks(64).map(|line| format!("{indent}{}\n", String::from_utf8_lossy(line)));
        lines.collect::<String>()
    };
    Ok(match format {
        Format::Der => root.to_vec(),
        Format::Pem => format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", lines("")).into_bytes(),
        Format::Mobileconfig => profile(root, &name_of(root)?, &lines("\t\t\t")).into_bytes(),
    })
}

/// A configuration profile with one root certificate. The same root is the same profile: installing it again
/// replaces it.
fn profile(root: &CertificateDer<'_>, name: &str, content: &str) -> String {
    let name = name.replace('&', "&amp;").replace('<', "&lt;");
    let digest = Sha256::digest(root);
    let uuid = |salt: u8| {
        let hex: String = digest.iter().take(16).map(|byte| format!("{:02X}", byte ^ salt)).collect();
        format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
    };
    let (inner, outer) = (uuid(0), uuid(0xff));
    format!(
        r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
	<key>PayloadContent</key>
	<array>
		<dict>
			<key>PayloadCertificateFileName</key>
			<string>hearthgate.crt</string>
			<key>PayloadContent</key>
			<data>
{content}			</data>
			<key>PayloadDisplayName</key>
			<string>{name}</string>
			<key>PayloadIdentifier</key>
			<string>hearthgate.ca.{inner}</string>
			<key>PayloadType</key>
			<string>com.apple.security.root</string>
			<key>PayloadUUID</key>
			<string>{inner}</string>
			<key>PayloadVersion</key>
			<integer>1</integer>
		</dict>
	</array>
	<key>PayloadDescription</key>
	<string>Trusts the CA of this house for its own names and for private addresses, and for nothing else.</string>
	<key>PayloadDisplayName</key>
	<string>{name}</string>
	<key>PayloadIdentifier</key>
	<string>hearthgate.profile.{outer}</string>
	<key>PayloadType</key>
	<string>Configuration</string>
	<key>PayloadUUID</key>
	<string>{outer}</string>
	<key>PayloadVersion</key>
	<integer>1</integer>
</dict>
</plist>
"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> CertificateDer<'static> {
        rcgen::generate_simple_self_signed(vec!["home.example".into()]).unwrap().cert.into()
    }

    #[test]
    fn every_form_holds_the_same_certificate() {
        let root = root();

        let pem = written(&root, Format::Pem).unwrap();
        let profile = String::from_utf8(written(&root, Format::Mobileconfig).unwrap()).unwrap();

        assert_eq!(CertificateDer::from_pem_slice(&pem).unwrap(), root);
        assert_eq!(written(&root, Format::Der).unwrap(), root.to_vec());
        let data = profile.split_once("<data>").unwrap().1.split_once("</data>").unwrap().0;
        let data: String = data.split_whitespace().collect();
        assert_eq!(BASE64_STANDARD.decode(data).unwrap(), root.to_vec());
        assert_eq!(profile.matches("PayloadUUID").count(), 2);
    }

    #[test]
    fn the_end_of_a_name_says_the_form() {
        assert_eq!(by_name(Path::new("a/root.crt")), Some(Format::Der));
        assert_eq!(by_name(Path::new("root.mobileconfig")), Some(Format::Mobileconfig));
        assert_eq!(by_name(Path::new("root")), None);
    }
}

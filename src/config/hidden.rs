//! Configurations as they may be shown: keys, tokens and passwords are hidden, and nothing else is changed.

use sha2::{Digest, Sha256};
use toml_edit::{DocumentMut, Item, TableLike, Value};

/// Keys whose text is a secret wherever they stand.
const SECRET: [&str; 10] = [
    "preshared_key",
    "token",
    "password",
    "secret",
    // Of [route.auth]: names with what their passwords are checked by.
    "basic",
    // Fields that a route adds to requests.
    "authorization",
    "proxy-authorization",
    "cookie",
    "x-api-key",
    "x-auth-token",
];
/// Tables in which `key` is a secret and no file.
const KEYED: [&str; 3] = ["rfc2136", "eab", "crowdsec"];

/// Hides the secrets of several texts so that the same one looks the same in all of them, and nothing else can be told
/// from what stands in its place.
#[derive(Debug)]
pub struct Hider {
    salt: [u8; 16],
}

impl Hider {
    /// Makes one; another one would hide the same secret behind other letters.
    pub fn new() -> Self {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).expect("the system has a random source");
        Self { salt }
    }

    /// Returns a text without its secrets. What is no configuration is not shown at all.
    pub fn hide(&self, text: &str) -> String {
        let Ok(mut document) = text.parse::<DocumentMut>() else {
            return "# it cannot be read, and so is not shown: it may hold secrets\n".into();
        };
        self.table(document.as_table_mut(), "");
        document.to_string()
    }

    fn table(&self, table: &mut dyn TableLike, name: &str) {
        for (key, item) in table.iter_mut() {
            let named = |secret: &&str| key.get().eq_ignore_ascii_case(secret);
            let is_secret = SECRET.iter().any(named) || key.get() == "key" && KEYED.contains(&name);
            match item {
                Item::Value(value) => self.value(value, key.get(), is_secret),
                Item::Table(inner) => self.table(inner, key.get()),
                Item::ArrayOfTables(tables) => tables.iter_mut().for_each(|inner| self.table(inner, key.get())),
                Item::None => {}
            }
        }
    }

    fn instead_of(&self, secret: &str) -> String {
        let digest = Sha256::new_with_prefix(self.salt).chain_update(secret).finalize();
        format!("(hidden, {:02x}{:02x})", digest[0], digest[1])
    }

    fn value(&self, value: &mut Value, key: &str, is_secret: bool) {
        match value {
            Value::InlineTable(inner) => self.table(inner, key),
            Value::Array(values) => values.iter_mut().for_each(|value| self.value(value, key, is_secret)),
            // Where a secret lies is none.
            Value::String(text) if is_secret && !text.value().starts_with("file:") => {
                let hidden = self.instead_of(text.value());
                let decor = value.decor().clone();
                *value = Value::from(hidden);
                *value.decor_mut() = decor;
            }
            Value::String(text) => {
                let Some((before, secret, after)) = userinfo(text.value()) else { return };
                let shown = format!("{before}{}{after}", self.instead_of(secret));
                let decor = value.decor().clone();
                *value = Value::from(shown);
                *value.decor_mut() = decor;
            }
            _ => {}
        }
    }
}

/// Finds who somebody is in a URL (RFC 3986 §3.2.1), between what stands before it and behind it.
fn userinfo(text: &str) -> Option<(&str, &str, &str)> {
    let begin = text.find("://")? + "://".len();
    let (before, rest) = text.split_at(begin);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let end = authority.rfind('@')?;
    let (secret, after) = rest.split_at(end);
    Some((before, secret, after))
}

impl Default for Hider {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_and_the_rest_stands_as_it_stood() {
        let text = "# mine\n[wan]\nprovider = { cloudflare = { token = \"s3cret-a\" } } # here\n\n[[ingress.acme]]\n\
                    eab = { kid = \"k\", key = \"s3cret-b\" }\nprovider = { rfc2136 = { key_name = \"n\", key = 's3cret-c' } }\n\
                    [[ingress.certificates]]\nkey = \"/etc/key.pem\"\n[[vpn.peer]] # phone\n  preshared_key = \"\"\"s3cret-d\"\"\"   # x\n\
                    [[route]]\nauth = { basic = [\"ann:s3cret-e\"] }\nheaders = { request = { set = { Authorization = \"s3cret-f\" } } }\n\
                    [dns]\npublic_clients = [{ name = \"phone\", secret = \"s3cret-g\" }]\n\
                    [[dns.list]]\nsource = \"https://ann:s3cret-h@lists.example/a@b\" # paid\n\
                    [[dns.list]]\nsource = \"https://lists.example/?to=a@b\"\n\
                    [other.desec]\n\"token\" = \"file:/etc/token\"\n";

        let shown = Hider::new().hide(text);

        assert!(!shown.contains("s3cret"), "{shown}");
        assert_eq!(shown.matches("(hidden, ").count(), 8, "{shown}");
        for kept in [
            "# mine\n",
            "} # here\n",
            "kid = \"k\"",
            "/etc/key.pem",
            "file:/etc/token",
            "[[vpn.peer]] # phone\n",
            "   # x\n",
            ")@lists.example/a@b\" # paid\n",
            "\"https://lists.example/?to=a@b\"",
        ] {
            assert!(shown.contains(kept), "{kept}: {shown}");
        }
    }

    #[test]
    fn a_secret_that_was_changed_looks_changed_and_cannot_be_guessed() {
        let text = |key: &str| format!("[[vpn.peer]]\npreshared_key = \"{key}\"\n");
        let (one, other) = (Hider::new(), Hider::new());

        assert_eq!(one.hide(&text("a")), one.hide(&text("a")));
        assert_ne!(one.hide(&text("a")), one.hide(&text("b")));
        let seen: std::collections::HashSet<String> = (0..8).map(|_| Hider::new().hide(&text("a"))).collect();
        assert!(seen.len() > 1, "it depends on nothing but the secret");
        assert!(!other.hide("preshared_key = \"half").contains("half"));
    }
}

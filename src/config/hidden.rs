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
const KEYED: [&str; 2] = ["rfc2136", "eab"];

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

    fn value(&self, value: &mut Value, key: &str, is_secret: bool) {
        match value {
            Value::InlineTable(inner) => self.table(inner, key),
            Value::Array(values) => values.iter_mut().for_each(|value| self.value(value, key, is_secret)),
            // Where a secret lies is none.
            Value::String(text) if is_secret && !text.value().starts_with("file:") => {
                let digest = Sha256::new_with_prefix(self.salt).chain_update(text.value()).finalize();
                let decor = value.decor().clone();
                *value = Value::from(format!("(hidden, {:02x}{:02x})", digest[0], digest[1]));
                *value.decor_mut() = decor;
            }
            _ => {}
        }
    }
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
                    [other.desec]\n\"token\" = \"file:/etc/token\"\n";

        let shown = Hider::new().hide(text);

        assert!(!shown.contains("s3cret"), "{shown}");
        assert_eq!(shown.matches("(hidden, ").count(), 7, "{shown}");
        for kept in [
            "# mine\n",
            "} # here\n",
            "kid = \"k\"",
            "/etc/key.pem",
            "file:/etc/token",
            "[[vpn.peer]] # phone\n",
            "   # x\n",
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

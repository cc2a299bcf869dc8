//! `hearthgate user`: people, what they may change, and their peers.

use std::path::PathBuf;

use clap::Subcommand;

use crate::{
    app::users::{self, Listed, UserEdit},
    cli::{Running, client, confirm, offline},
    origin::Role,
};

#[derive(Debug, Subcommand)]
pub(super) enum User {
    /// Add a person with their peers
    Add {
        /// What they will be called
        name: String,
        /// What they may change: viewer (nothing), operator (what passes by itself), owner (everything)
        #[arg(long, value_parser = role)]
        role: Role,
        /// A peer of theirs; may be repeated
        #[arg(long = "peer", value_name = "PEER")]
        peers: Vec<String>,
        #[command(flatten)]
        running: Running,
    },
    /// List the people
    List {
        #[command(flatten)]
        running: Running,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Remove a person; their peers stay, without a role
    Remove {
        /// What they are called
        name: String,
        #[command(flatten)]
        running: Running,
    },
}

fn role(text: &str) -> Result<Role, String> {
    let found = Role::ALL.iter().find(|(word, _)| *word == text).map(|(_, role)| *role);
    found.ok_or_else(|| "write viewer, operator or owner".to_owned())
}

impl User {
    pub(super) fn execute(self, state: Option<PathBuf>) -> anyhow::Result<()> {
        match self {
            Self::Add { name, role, peers, running } => {
                let said = format!("user \"{name}\" is added");
                let user = Listed { name, role, peers };
                edit(&running, state, UserEdit::Add(user.clone()), &said, |folder| {
                    client::post(folder, "/api/v1/users", &user)
                })
            }
            Self::List { running, json } => {
                let folder = running.state(state)?;
                let users: Vec<Listed> = match client::is_running(&folder) {
                    true => client::get(&folder, "/api/v1/users")?,
                    false => users::list(&offline::look(&running, &folder)?),
                };
                if json {
                    println!("{}", serde_json::to_string_pretty(&users)?);
                    return Ok(());
                }
                for user in &users {
                    println!("{:<20} {:<10} {}", user.name, user.role.to_string(), user.peers.join(", "));
                }
                Ok(())
            }
            Self::Remove { name, running } => {
                let (said, path) = (format!("user \"{name}\" is removed"), format!("/api/v1/users/{name}"));
                edit(&running, state, UserEdit::Remove(name), &said, |folder| client::delete(folder, &path))
            }
        }
    }
}

fn edit(
    running: &Running,
    state: Option<PathBuf>,
    edit: UserEdit,
    said: &str,
    ask: impl FnOnce(&std::path::Path) -> anyhow::Result<Vec<Listed>>,
) -> anyhow::Result<()> {
    let folder = running.state(state)?;
    if client::is_running(&folder) {
        ask(&folder)?;
        eprintln!("{said}");
        confirm::remind(&folder)?;
    } else {
        offline::edit(running, &folder, &edit.to_string(), |edits, config| users::apply(edits, &edit, config))?;
        eprintln!("{said}; no hearthgate is running, it applies at the next start");
    }
    Ok(())
}

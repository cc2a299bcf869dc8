//! `hearthgate console`: how to look at the pages.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::{
    app::{control, status::Status},
    cli::{Running, client},
};

/// Where the socket appears on the owner's own machine.
const PORT: u16 = 8443;

#[derive(Args, Debug)]
pub(super) struct Console {
    #[command(flatten)]
    running: Running,
}

impl Console {
    pub(super) fn execute(self, state: Option<PathBuf>) -> anyhow::Result<()> {
        let state = self.running.state(state)?;
        let status: Status = client::get(&state, "/api/v1/status")?;
        let absolute = std::path::absolute(&status.state)?;
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        print!("{}", told(status.console.as_deref(), &absolute, host.trim()));
        Ok(())
    }
}

fn told(inside: Option<&str>, state: &Path, host: &str) -> String {
    let host = if host.is_empty() { "BOX" } else { host };
    let socket = control::socket(state);
    let inside = match inside {
        Some(inside) => {
            format!("inside the tunnel, for peers of people with a role (`hearthgate user list`): https://{inside}/\n")
        }
        None => "inside the tunnel: nowhere, because the configuration has no `console.host`\n".to_owned(),
    };
    format!(
        "{inside}from any machine that has SSH, as root or as the edge's own user:\n  \
         ssh -N -L {PORT}:{socket} root@{host}\nand then: http://localhost:{PORT}/\n",
        socket = socket.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_can_be_pasted() {
        let text = told(Some("edge.home.arpa"), Path::new("/var/lib/hearthgate"), "box");

        assert!(text.contains("https://edge.home.arpa/"), "{text}");
        assert!(text.contains("  ssh -N -L 8443:/var/lib/hearthgate/control.sock root@box\n"), "{text}");
        assert!(told(None, Path::new("/s"), "").contains("root@BOX"));
    }
}

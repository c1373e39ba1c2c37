//! `[admin]`: where operators reach the stores of a running gateway, and who they are.

use std::net::SocketAddr;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use toml::{Spanned, Value};

use super::check::Check;
use super::secret;
use super::server::{is_public, loopback};

/// The fewest characters of a token: what is shorter can be guessed.
const SHORTEST: usize = 16;

/// A port for operators.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    /// Its address, on this machine. Default: 127.0.0.1:9465.
    pub(crate) listen: SocketAddr,
    /// Who shows one of these may do everything there; at least one.
    pub(crate) tokens: Vec<SecretString>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct AdminFile {
    listen: Option<Spanned<String>>,
    bearer_tokens: Option<Spanned<Vec<Spanned<Value>>>>,
}

// === impl AdminFile ===

impl AdminFile {
    /// Checks the section.
    pub(super) fn check(self, check: &mut Check<'_>) -> Admin {
        let listen = check.address("listen", self.listen.as_ref(), loopback(9465));
        if let Some(written) = self.listen.filter(|_| is_public(listen)) {
            let problem = format!(
                "`listen` is {listen}, which other machines reach, and tokens would travel unencrypted: use a loopback address \
                 such as 127.0.0.1; who is elsewhere forwards the port, by ssh -L or kubectl port-forward"
            );
            check.refuse(written.span(), problem);
        }
        let Some(written) = self.bearer_tokens.filter(|tokens| !tokens.get_ref().is_empty()) else {
            check.refuse_all(
                "[admin] needs bearer_tokens, by which operators show who they are: write bearer_tokens = [\"file:PATH\"] or \
                 [\"env:NAME\"]; `openssl rand -hex 32` makes a token",
            );
            return Admin { listen, tokens: Vec::new() };
        };
        let tokens = written.into_inner().iter().filter_map(|written| token(check, written)).collect();
        Admin { listen, tokens }
    }
}

fn token(check: &mut Check<'_>, written: &Spanned<Value>) -> Option<SecretString> {
    let token = secret::read(check, "bearer_tokens", written)?;
    let length = token.expose_secret().len();
    if length < SHORTEST {
        let problem = format!(
            "`bearer_tokens`: a token of {length} characters can be guessed: use at least {SHORTEST} random ones"
        );
        check.refuse(written.span(), problem);
        return None;
    }
    Some(token)
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::config::fixture::{SMALLEST, accepted, refused};

    const TOKENS: &str = "bearer_tokens = [\"env:TOKEN\"]";

    fn parse(section: &str) -> Result<Config, String> {
        let env = |name: &str| (name == "TOKEN").then(|| "a-token-of-many-letters".to_owned());
        let text = format!("[admin]\n{section}\n{SMALLEST}");
        Config::parse(&text, "t.toml", &env).map_err(|errors| errors.to_string())
    }

    #[test]
    fn there_is_none_unless_it_is_written() {
        assert!(accepted("").admin.is_none());
        let admin = parse(TOKENS).unwrap().admin.unwrap();
        assert_eq!((admin.listen, admin.tokens.len()), ("127.0.0.1:9465".parse().unwrap(), 1));
        assert!(!format!("{admin:?}").contains("many-letters"));
    }

    #[test]
    fn a_port_without_tokens_is_refused() {
        for section in ["[admin]", "[admin]\nbearer_tokens = []"] {
            let shown = refused(&format!("{section}\n"));
            assert!(shown.starts_with("t.toml: [admin] needs bearer_tokens, by which"), "{shown}");
        }
        let shown = refused("[admin]\nbearer_tokens = [\"env:KEY\"]\n");
        assert_eq!(
            shown.lines().next(),
            Some(
                "t.toml:2:18: `bearer_tokens`: a token of 11 characters can be guessed: use at least 16 random ones"
            )
        );
    }

    #[test]
    fn an_address_that_other_machines_reach_is_refused() {
        for address in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1"] {
            let shown = parse(&format!("listen = \"{address}\"\n{TOKENS}")).unwrap_err();
            assert!(shown.contains("which other machines reach, and tokens would travel"), "{shown}");
        }
        parse(&format!("listen = \"[::1]:7\"\n{TOKENS}")).unwrap();
    }

    #[test]
    fn an_address_of_another_port_is_refused() {
        for other in ["8080", "9464"] {
            let shown = parse(&format!("listen = \"127.0.0.1:{other}\"\n{TOKENS}")).unwrap_err();
            assert!(
                shown.contains(&format!("are both 127.0.0.1:{other}: give them different ports")),
                "{shown}"
            );
        }
    }
}

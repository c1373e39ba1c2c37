//! `[providers.NAME.KIND]`: where requests are sent. The kind is a key, so that errors keep their place.

use serde::Deserialize;
use throughline_llm::simulated::SimulatedConfig;
use toml::Spanned;

use super::check::Check;
use super::openai::{OpenAiConfig, OpenAiFile};
use super::simulated::SimulatedFile;

/// A provider.
#[derive(Debug)]
pub(crate) enum Provider {
    /// OpenAI, or a server that speaks its language.
    OpenAi(OpenAiConfig),
    /// The provider that is built in.
    Simulated(SimulatedConfig),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct ProviderFile {
    openai: Option<OpenAiFile>,
    simulated: Option<SimulatedFile>,
}

// === impl ProviderFile ===

impl ProviderFile {
    /// Checks the one kind that is there.
    pub(super) fn check(self, check: &mut Check<'_>, name: &Spanned<String>) -> Provider {
        let openai = self.openai.map(|file| Provider::OpenAi(file.check(check)));
        let simulated = self.simulated.map(|file| Provider::Simulated(file.check(check)));
        let mut kinds = [openai, simulated].into_iter().flatten();
        let kind = kinds.next().unwrap_or_else(|| {
            let problem = format!(
                "provider `{0}` has no kind: write [providers.{0}.openai] or [providers.{0}.simulated]",
                name.get_ref()
            );
            check.refuse(name.span(), problem);
            Provider::Simulated(SimulatedConfig::default())
        });
        if kinds.next().is_some() {
            let problem = format!("provider `{}` has two kinds: give each its own name", name.get_ref());
            check.refuse(name.span(), problem);
        }
        kind
    }
}

#[cfg(test)]
mod tests {
    use crate::config::fixture::refused;

    #[test]
    fn a_provider_without_a_kind_is_refused() {
        assert_eq!(
            refused("[providers.p]\n"),
            "t.toml:1:12: provider `p` has no kind: write [providers.p.openai] or [providers.p.simulated]\n    \
             1 | [providers.p]\n      |            ^"
        );
    }

    #[test]
    fn a_provider_of_two_kinds_is_refused() {
        assert_eq!(
            refused("[providers.p]\nsimulated = {}\nopenai = { base_url = \"http://h/v1\" }\n"),
            "t.toml:1:12: provider `p` has two kinds: give each its own name\n    \
             1 | [providers.p]\n      |            ^"
        );
    }

    #[test]
    fn a_kind_that_does_not_exist_is_refused() {
        assert_eq!(
            refused("[providers.p.opnai]\n"),
            "t.toml:1:14: unknown key `opnai`, did you mean `openai`? (allowed: openai, simulated)\n    \
             1 | [providers.p.opnai]\n      |              ^^^^^"
        );
    }
}

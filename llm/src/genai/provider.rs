//! Who provides, by the address that is called.

/// Hosts and what the conventions call who is there. What begins with a dot is the end of a host.
const HOSTS: [(&str, &str); 19] = [
    ("api.openai.com", "openai"),
    (".openai.azure.com", "azure.ai.openai"),
    (".services.ai.azure.com", "azure.ai.inference"),
    (".models.ai.azure.com", "azure.ai.inference"),
    ("api.anthropic.com", "anthropic"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("-aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("api.mistral.ai", "mistral_ai"),
    ("codestral.mistral.ai", "mistral_ai"),
    ("api.cohere.ai", "cohere"),
    ("api.cohere.com", "cohere"),
    ("api.deepseek.com", "deepseek"),
    ("api.groq.com", "groq"),
    ("api.moonshot.ai", "moonshot_ai"),
    ("api.moonshot.cn", "moonshot_ai"),
    ("api.perplexity.ai", "perplexity"),
    ("api.x.ai", "x_ai"),
    (".ml.cloud.ibm.com", "ibm.watsonx.ai"),
];

/// The `gen_ai.provider.name` of who is at `host`, where the conventions have one.
#[must_use]
pub fn provider_name(host: &str) -> Option<&'static str> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    if host.starts_with("bedrock-runtime.") && host.ends_with(".amazonaws.com") {
        return Some("aws.bedrock");
    }
    let is_at = |(at, _): &&(&str, &str)| match at.starts_with(['.', '-']) {
        true => host.ends_with(at),
        false => host == *at,
    };
    HOSTS.iter().find(is_at).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_providers_by_their_hosts_and_nobody_else() {
        for (host, name) in [
            ("api.openai.com", "openai"),
            ("API.OpenAI.com.", "openai"),
            ("mine.openai.azure.com", "azure.ai.openai"),
            ("europe-west1-aiplatform.googleapis.com", "gcp.vertex_ai"),
            ("api.groq.com", "groq"),
            ("bedrock-runtime.eu-west-1.amazonaws.com", "aws.bedrock"),
        ] {
            assert_eq!(provider_name(host), Some(name), "{host}");
        }
        for host in [
            "localhost",
            "127.0.0.1",
            "api.openai.com.evil.example",
            "evilapi.groq.com",
            "ec2.amazonaws.com",
            "",
        ] {
            assert_eq!(provider_name(host), None, "{host}");
        }
    }
}

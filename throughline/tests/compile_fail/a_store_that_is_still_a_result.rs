use std::time::Duration;
use throughline::{CacheConfig, ConfigError, JsonCaching, Memory, workflow};

async fn shout(text: String) -> throughline::Result<String> {
    Ok(text.to_uppercase())
}

fn main() -> Result<(), ConfigError> {
    let caching = JsonCaching::keyed(|text: &String, _, key| Some(key.text(text)));
    let config = CacheConfig::new("shout", Duration::from_secs(60))?;
    let _ = workflow("shout", shout).cache(config, caching, Memory::new(1 << 20));
    Ok(())
}

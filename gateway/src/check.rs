//! `throughline check`: every mistake in a configuration, or the workflows that it makes.

use std::collections::BTreeMap;
use std::io::Write as _;

use crate::cli::Check;
use crate::config::Config;
use crate::config_file;
use crate::workflows;

/// What is said where there is nothing to check.
const NOTHING: &str = "no configuration was found: there is no throughline.toml in this folder. Name one, as `throughline check FILE`, \
     or write one: `throughline serve --help` shows one to begin with";

/// Checks a file and shows the workflow of each model.
///
/// # Errors
/// Everything that is wrong with the file.
pub(crate) fn check(args: &Check) -> Result<(), String> {
    let named = args.file.as_deref().or(args.config.as_deref());
    let path = config_file::find(named).ok_or(NOTHING)?;
    let config = Config::load(path, &|name| std::env::var(name).ok()).map_err(|errors| errors.to_string())?;
    let built = workflows::build(&config).map_err(|error| format!("{}: {error}", path.display()))?;
    let models = built.models;
    if args.json {
        let graphs: BTreeMap<_, _> = models.iter().map(|(name, model)| (name, model.describe())).collect();
        show(&(serde_json::to_string_pretty(&graphs).expect("a graph of strings serialises") + "\n"));
        return Ok(());
    }
    let plural = if models.len() == 1 { "" } else { "s" };
    show(&format!("{} is good: {} model{plural}\n", path.display(), models.len()));
    for (name, store) in &config.stores {
        show(&format!("\nstore {name}: {}\n", store.shown()));
        for (model, _) in config.models.iter().filter(|(_, model)| model.store() == Some(name)) {
            show(&format!("  keeps answers of {model}\n"));
        }
    }
    for (name, model) in &models {
        show(&format!("\n{name}\n{}", model.describe().to_tree()));
    }
    Ok(())
}

/// Whoever reads only the beginning has what it wanted: the exit code says the rest.
pub(crate) fn show(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

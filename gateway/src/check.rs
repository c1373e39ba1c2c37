//! `throughline check`: every mistake in a configuration, or the workflows that it makes.

use std::collections::BTreeMap;

use crate::cli::Check;
use crate::config::Config;
use crate::workflows;

/// Checks a file and shows the workflow of each model.
///
/// # Errors
/// Everything that is wrong with the file.
#[expect(clippy::print_stdout, reason = "the workflows are what this command prints")]
pub(crate) fn check(args: &Check) -> Result<(), String> {
    let config =
        Config::load(&args.config, &|name| std::env::var(name).ok()).map_err(|errors| errors.to_string())?;
    let models = workflows::build(&config).map_err(|error| format!("{}: {error}", args.config.display()))?;
    if args.json {
        let graphs: BTreeMap<_, _> = models.iter().map(|(name, model)| (name, model.describe())).collect();
        println!("{}", serde_json::to_string_pretty(&graphs).expect("a graph of strings serialises"));
        return Ok(());
    }
    println!("{} is good: {} model(s)", args.config.display(), models.len());
    for (name, model) in &models {
        println!("\n{name}\n{}", model.describe().to_tree());
    }
    Ok(())
}

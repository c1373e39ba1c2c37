//! `throughline cache flush`: removes everything of ours from the stores.

use std::io::{IsTerminal as _, Write as _};

use super::Ended;
use super::args::Flush;
use super::open::{chosen, configuration, ended, failed};
use super::purge::{Removal, remove};

/// Flushes the stores.
///
/// # Errors
/// When nobody agrees, the configuration is not good or a store fails; the others are flushed all the same.
pub(super) async fn run(args: &Flush) -> Result<(), Ended> {
    let config = configuration(&args.stores)?;
    let names: Vec<_> = chosen(&config, &args.stores).map(|(name, _)| name).collect();
    if !args.dry_run && !args.yes {
        agree(&names)?;
    }
    let mut removal = Removal { dry_run: args.dry_run, stores: Vec::new() };
    let mut failures = Vec::new();
    for (name, store) in chosen(&config, &args.stores) {
        match remove(name, store, args.dry_run, |_| true).await {
            Ok(removed) => removal.stores.push(removed),
            Err(error) => failures.push(failed(name, &error)),
        }
    }
    removal.show(args.stores.json);
    removal.warn(&config);
    ended(&failures)
}

/// Asks who sits at the terminal.
fn agree(stores: &[&str]) -> Result<(), Ended> {
    let stores = stores.join(", ");
    if !std::io::stdin().is_terminal() {
        let problem =
            format!("everything in {stores} would be removed: say --yes, or look first with --dry-run");
        return Err(Ended::Refused(problem));
    }
    // Whoever closes it is asked all the same.
    let _ = write!(std::io::stderr(), "remove everything in {stores}? [y/N] ");
    let mut answer = String::new();
    let _ = std::io::stdin().read_line(&mut answer);
    if !matches!(answer.trim(), "y" | "Y" | "yes") {
        return Err(Ended::Refused("nothing was removed".to_owned()));
    }
    Ok(())
}

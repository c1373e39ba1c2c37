//! `throughline cache flush`: removes everything of ours from the stores.

use std::io::{IsTerminal as _, Write as _};

use super::Ended;
use super::args::Flush;
use super::open::{Through, chosen, ended, through};
use super::purge::{Removal, Selection};

/// Flushes the stores.
///
/// # Errors
/// When nobody agrees, the configuration is not good or a store fails; the others are flushed all the same.
pub(super) async fn run(args: &Flush) -> Result<(), Ended> {
    let asked = |what: &str| if args.dry_run || args.yes { Ok(()) } else { agree(what) };
    let removal = match through(&args.stores).await? {
        Through::Gateway(gateway) => {
            let which = args.stores.store.join(", ");
            let which = if which.is_empty() { "the stores and the memory".to_owned() } else { which };
            asked(&format!("{which} of the gateway at {}", gateway.url()))?;
            gateway.flush(args).await?
        }
        Through::Stores(config) => {
            let targets = chosen(&config, &args.stores);
            asked(&targets.iter().map(|target| target.name.as_str()).collect::<Vec<_>>().join(", "))?;
            Removal::from(&targets, &Selection::All, args.dry_run).await
        }
    };
    removal.show(args.stores.json);
    ended(&removal.failures)
}

/// Asks who sits at the terminal.
fn agree(stores: &str) -> Result<(), Ended> {
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

//! The monitoring guide says of every panel what the panel says of itself.
//!
//! Its tables stand between `<!-- panels of NAME -->` and `<!-- end of panels -->`, and are written by this test with
//! `UPDATE_FIXTURES=1`.

use std::fmt::Write as _;

use super::bounds::Bounds;
use super::dashboards;
use super::describe::Dashboard;
use crate::ops::options::Options;

const GUIDE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guides/monitoring.md");
const END: &str = "<!-- end of panels -->";

/// A row is a table.
fn tables(dashboard: &Dashboard) -> String {
    let mut text = String::new();
    for row in &dashboard.rows {
        let title = row.title;
        write!(text, "\n| {title} | shows | good |\n|---|---|---|\n")
            .expect("writing to a string cannot fail");
        for panel in &row.panels {
            let runbook = panel
                .alert
                .map(|alert| format!(" Alert: [{alert}](../../ops/runbooks/{alert}.md)."))
                .unwrap_or_default();
            writeln!(text, "| {} | {} | {}{runbook} |", panel.title, panel.shows, panel.good)
                .expect("writing to a string cannot fail");
        }
    }
    text
}

/// The guide with the tables of these dashboards.
fn with_tables(guide: &str, dashboards: &[Dashboard]) -> String {
    let mut text = guide.to_owned();
    for dashboard in dashboards {
        let start = format!("<!-- panels of {} -->\n", dashboard.slug());
        let (before, rest) = text.split_once(&start).unwrap_or_else(|| panic!("no {start:?} in the guide"));
        let (_, after) = rest.split_once(END).unwrap_or_else(|| panic!("no {END:?} after {start:?}"));
        text = format!("{before}{start}{}\n{END}{after}", tables(dashboard));
    }
    text
}

#[test]
fn the_guide_describes_every_panel() {
    let written = std::fs::read_to_string(GUIDE).unwrap();
    let new = with_tables(&written, &dashboards(&Bounds::of(&Options::default())));
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(GUIDE, new).unwrap();
    } else {
        assert!(written == new, "docs/guides/monitoring.md is stale: run this test with UPDATE_FIXTURES=1");
    }
}

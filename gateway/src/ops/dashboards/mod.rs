//! Grafana: dashboards and what makes Grafana load them.
//!
//! A dashboard is described once ([`describe`]), in a file of its own, and rendered as Grafana's JSON ([`render`]) for
//! the pack's options; its limits are those of the alerts ([`bounds`]). Tests parse every query, compare its names with
//! the catalogue, and apply the rules that dashboards are linted by; the guide's lists of panels come from the same
//! descriptions.

mod bounds;
mod circuits;
mod describe;
mod llm;
mod maturity;
mod performance;
mod primitives;
mod provisioning;
mod render;
mod system;
mod workflows;

#[cfg(test)]
mod catalogue;
#[cfg(test)]
mod guide;
#[cfg(test)]
mod lint;
#[cfg(test)]
mod promql;

use bounds::Bounds;
use describe::Dashboard;

use super::options::Options;
use super::pack::File;

/// The files below `grafana/`.
pub(super) fn files(options: &Options) -> Vec<File> {
    let mut files = provisioning::files();
    files.extend(dashboards(&Bounds::of(options)).iter().map(|dashboard| {
        File::new(format!("grafana/dashboards/{}.json", dashboard.slug()), render::json(dashboard, options))
    }));
    files
}

/// Every dashboard, in the order of the guide.
fn dashboards(bounds: &Bounds) -> Vec<Dashboard> {
    vec![
        system::dashboard(bounds),
        workflows::dashboard(bounds),
        llm::dashboard(bounds),
        maturity::dashboard(),
        circuits::dashboard(),
        performance::dashboard(bounds),
        primitives::dashboard(),
    ]
}

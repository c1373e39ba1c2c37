//! Grafana: dashboards and what makes Grafana load them.

use super::options::Options;
use super::pack::File;

/// The files below `grafana/`.
pub(super) fn files(_options: &Options) -> Vec<File> {
    Vec::new()
}

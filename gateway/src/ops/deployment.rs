//! What is written by hand in `ops/`: how to run a gateway and what stands around it.
//!
//! A file that is not listed here is not exported, and `cargo xtask gen --check` refuses it in `ops/`.

use std::fmt::Write as _;

use super::options::Options;
use super::pack::File;
use super::prometheus;

/// Path below `ops/`, and text.
macro_rules! by_hand {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_str!(concat!("../../../ops/", $path)))),*]
    };
}

/// Every file, by folder.
static FILES: &[(&str, &str)] = by_hand![
    "Containerfile",
    "compose.yaml",
    "kubernetes/gateway/deployment.yaml",
    "kubernetes/gateway/kustomization.yaml",
    "kubernetes/gateway/networkpolicy.yaml",
    "kubernetes/gateway/poddisruptionbudget.yaml",
    "kubernetes/gateway/service.yaml",
    "kubernetes/gateway/throughline.toml",
    "kubernetes/monitoring/kustomization.yaml",
    "kubernetes/monitoring/servicemonitor.yaml",
    "systemd/throughline-alertmanager.service",
    "systemd/throughline-grafana.service",
    "systemd/throughline-prometheus.service",
    "systemd/throughline-redis.service",
    "systemd/throughline-traces.service",
    "systemd/throughline.service",
    "systemd/throughline.target",
    "throughline.toml",
];

/// The files, for the job of the options.
pub(super) fn files(options: &Options) -> Vec<File> {
    let by_hand = FILES.iter().map(|(path, text)| File::new(*path, for_job(text, options)));
    by_hand.chain(prometheus::files(options).iter().filter_map(rules)).collect()
}

/// The job also stands where the Prometheus operator gives it to what it scrapes.
fn for_job(text: &str, options: &Options) -> String {
    let job = "targetLabel: job\n          replacement:";
    options.for_job(text).replace(&format!("{job} throughline\n"), &format!("{job} {}\n", options.job))
}

/// A file of rules as the Prometheus operator reads it.
fn rules(file: &File) -> Option<File> {
    let name = file.path.strip_prefix("prometheus/rules/")?.strip_suffix(".yml")?;
    let mut text = format!(
        "apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: throughline-{name}\nspec:\n"
    );
    for line in file.text.lines() {
        let indent = if line.is_empty() { "" } else { "  " };
        writeln!(text, "{indent}{line}").expect("a string takes any text");
    }
    Some(File::new(format!("kubernetes/monitoring/rules-{name}.yaml"), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text<'a>(files: &'a [File], path: &str) -> &'a str {
        &files.iter().find(|file| file.path == path).unwrap_or_else(|| panic!("no {path}")).text
    }

    #[test]
    fn rules_for_the_operator_hold_what_prometheus_reads() {
        let files = files(&Options::default());
        for plain in prometheus::files(&Options::default()) {
            let Some(name) = plain.path.strip_prefix("prometheus/rules/") else { continue };
            let wrapped =
                text(&files, &format!("kubernetes/monitoring/rules-{}", name.replace(".yml", ".yaml")));
            let (head, body) = wrapped.split_once("spec:\n").unwrap();
            assert!(head.contains("kind: PrometheusRule"), "{head}");
            let body: String =
                body.lines().map(|line| format!("{}\n", line.strip_prefix("  ").unwrap_or(line))).collect();
            assert_eq!(body, plain.text);
        }
    }

    #[test]
    fn everything_that_is_scraped_and_asked_for_has_the_job_of_the_options() {
        let files = files(&Options { job: "edge".to_owned(), ..Options::default() });
        let monitor = text(&files, "kubernetes/monitoring/servicemonitor.yaml");
        assert!(monitor.contains("targetLabel: job\n          replacement: edge\n"), "{monitor}");
        let alerts = text(&files, "kubernetes/monitoring/rules-alerts.yaml");
        assert!(alerts.contains("job=\"edge\"") && !alerts.contains("job=\"throughline\""));
    }

    #[test]
    fn what_kustomize_and_the_image_name_is_there() {
        let files = files(&Options::default());
        for folder in ["kubernetes/gateway", "kubernetes/monitoring"] {
            let list = text(&files, &format!("{folder}/kustomization.yaml"));
            let (_, resources) = list.split_once("resources:\n").unwrap();
            for name in resources.lines().map_while(|line| line.strip_prefix("  - ")) {
                text(&files, &format!("{folder}/{name}"));
            }
        }
        let manifest = include_str!("../../../Cargo.toml");
        let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).unwrap();
        for member in members.trim_matches(['[', ']']).split(", ").map(|member| member.trim_matches('"')) {
            let line = format!("COPY {member} {member}\n");
            assert!(text(&files, "Containerfile").contains(&line), "the image is built without {member}");
        }
    }
}

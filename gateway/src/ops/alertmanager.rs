//! Alertmanager: who hears what, what comes together, and what need not be said beside something worse.

use super::options::Options;
use super::pack::File;

/// The files below `alertmanager/`.
pub(super) fn files(options: &Options) -> Vec<File> {
    let receivers: String = ["critical", "warning", "info", "watchdog"]
        .map(|name| {
            let url = format!("{}/{name}", options.alert_webhook);
            format!(
                "  - name: {name}\n    webhook_configs:\n      - url: {url}\n        send_resolved: true\n"
            )
        })
        .concat();
    vec![File::new("alertmanager/alertmanager.yml", format!("{ROUTES}\nreceivers:\n{receivers}"))]
}

const ROUTES: &str = "\
# Written by `throughline ops export`; its options change it.
#
#   alertmanager --config.file=alertmanager.yml
#
# Each receiver posts to a webhook of its own. Put what your people use there: pagerduty_configs, slack_configs, …
route:
  receiver: warning
  # One message per alert and job, however many instances, circuits or operations it holds for.
  group_by: [alertname, job]
  group_wait: 30s
  group_interval: 5m
  repeat_interval: 12h
  routes:
    # For whatever calls somebody when it no longer hears this: it is sent again and again.
    - matchers: [alertname = Watchdog]
      receiver: watchdog
      group_wait: 0s
      group_interval: 1m
      repeat_interval: 5m
    - matchers: [severity = critical]
      receiver: critical
      group_wait: 10s
      repeat_interval: 1h
    - matchers: [severity = info]
      receiver: info
      repeat_interval: 24h

inhibit_rules:
  # The same, only worse.
  - source_matchers: [severity = critical]
    target_matchers: [severity =~ \"warning|info\"]
    equal: [alertname, job]
  # What is not there says nothing that could be believed. The others of its job still can.
  - source_matchers: [alertname = GatewayTargetDown]
    target_matchers: [alertname != GatewayTargetDown]
    equal: [job, instance]
  - source_matchers: [alertname = GatewayTargetAbsent]
    target_matchers: [alertname != GatewayTargetAbsent]
    equal: [job]
  # Nothing is found in a store that is down.
  - source_matchers: [alertname = CacheStoreDown]
    target_matchers: [alertname = CacheHitRateLow]
    equal: [job]
";

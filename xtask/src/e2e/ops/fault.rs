//! What is broken, and the alerts that are to come of it: these and no other.

use super::provider::Mood;
use super::stand::Stand;
use crate::failure::Failure;

/// One thing that breaks, and can be mended.
pub(crate) struct Fault {
    pub(crate) name: &'static str,
    pub(crate) inject: fn(&mut Stand) -> Result<(), Failure>,
    pub(crate) heal: fn(&mut Stand) -> Result<(), Failure>,
    /// Name and severity of every alert that must arrive.
    pub(crate) expected: &'static [(&'static str, &'static str)],
    /// What may arrive as well, since it depends on how long things take here.
    pub(crate) companions: &'static [(&'static str, &'static str)],
    /// What is told long after it was mended, as windows of days have it: the short form does not wait for it.
    pub(crate) late: &'static [(&'static str, &'static str)],
    /// Whether it is part of the short form.
    pub(crate) short: bool,
}

/// A restart is two minutes of the pack's time where it takes a second.
const RESTART: &[(&str, &str)] = &[("GatewayTargetDown", "critical")];

/// In this order: what takes longest to be forgotten comes last.
pub(crate) const FAULTS: &[Fault] = &[
    Fault {
        name: "cheap route broken",
        inject: |stand| {
            stand.cheap_is(Mood::Broken);
            Ok(())
        },
        heal: |stand| {
            stand.cheap_is(Mood::Well);
            Ok(())
        },
        expected: &[("RouterSavingsLow", "warning"), ("CircuitOpen", "warning")],
        companions: &[],
        late: &[],
        short: true,
    },
    Fault {
        name: "slow provider",
        inject: |stand| {
            stand.plain.is(Mood::Slow);
            Ok(())
        },
        heal: |stand| {
            stand.plain.is(Mood::Well);
            Ok(())
        },
        expected: &[("TimeoutRateHigh", "critical")],
        companions: &[],
        late: &[],
        short: true,
    },
    Fault {
        name: "Redis stopped",
        inject: |stand| {
            stand.stop_redis();
            Ok(())
        },
        heal: |stand| {
            stand.continue_redis();
            Ok(())
        },
        expected: &[("CacheStoreDown", "warning")],
        companions: &[],
        late: &[],
        short: true,
    },
    Fault {
        name: "nobody asks twice",
        inject: |stand| {
            stand.unlike(true);
            Ok(())
        },
        heal: |stand| {
            stand.unlike(false);
            Ok(())
        },
        expected: &[("CacheHitRateLow", "warning")],
        companions: &[],
        late: &[],
        short: false,
    },
    Fault {
        name: "collector away",
        inject: |stand| {
            stand.collector.go();
            Ok(())
        },
        heal: |stand| {
            let back = stand.collector.come();
            back.map_err(|error| Failure::missing(format!("the collector's port is no longer free: {error}")))
        },
        expected: &[("TelemetryExportFailing", "warning")],
        companions: &[],
        late: &[],
        short: false,
    },
    Fault {
        name: "component promoted",
        inject: |stand| stand.promote(true),
        heal: |stand| stand.promote(false),
        expected: &[("ComponentPromoted", "info")],
        companions: &[],
        late: &[],
        short: false,
    },
    Fault {
        name: "bad configuration",
        inject: |stand| stand.reload(false),
        heal: |stand| stand.reload(true),
        expected: &[("ConfigReloadFailed", "warning")],
        companions: &[],
        late: &[],
        short: false,
    },
    Fault {
        name: "component neglected",
        inject: |stand| stand.neglect(true),
        heal: |stand| stand.neglect(false),
        expected: &[("ComponentGateLost", "info")],
        companions: &[],
        late: &[],
        short: false,
    },
    Fault {
        name: "target forgotten",
        inject: |stand| stand.forget_target(true),
        heal: |stand| stand.forget_target(false),
        expected: &[("GatewayTargetAbsent", "critical")],
        companions: &[],
        late: &[],
        short: false,
    },
    Fault {
        name: "log disk full",
        inject: |stand| stand.restart(|config| config + "\n[log]\nfile = \"/dev/full\"\n"),
        heal: |stand| stand.restart(|config| config),
        expected: &[],
        companions: RESTART,
        late: &[],
        short: false,
    },
    Fault {
        name: "exporter port taken",
        inject: Stand::take_metrics_port,
        heal: Stand::free_metrics_port,
        expected: &[("ApmInitFailed", "critical")],
        companions: RESTART,
        late: &[],
        short: true,
    },
    Fault {
        name: "gateway stopped",
        inject: |stand| {
            stand.stop_gateway();
            Ok(())
        },
        heal: Stand::start_gateway,
        expected: &[("GatewayTargetDown", "critical")],
        companions: &[],
        late: &[],
        short: false,
    },
    Fault {
        name: "providers down",
        inject: |stand| stand.providers(false),
        heal: |stand| stand.providers(true),
        expected: &[("GatewayErrorBudgetBurn", "critical"), ("CircuitOpen", "warning")],
        companions: &[],
        // While the critical one fires, it is inhibited.
        late: &[("GatewayErrorBudgetBurn", "warning")],
        short: true,
    },
];

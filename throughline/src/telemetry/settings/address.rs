//! `OTEL_EXPORTER_PROMETHEUS_HOST` and `_PORT`: where metrics are served.

use std::net::{IpAddr, Ipv4Addr};

use super::{Env, Settings, shown, word};

// === impl Settings ===

impl Settings {
    pub(super) fn apply_address(&mut self, env: Env<'_>) {
        let Some(mut address) = self.metrics else { return };
        if let Some(host) = env("OTEL_EXPORTER_PROMETHEUS_HOST") {
            match ip(&word(&host)) {
                Some(ip) => address.set_ip(ip),
                None => self.warn(format!(
                    "OTEL_EXPORTER_PROMETHEUS_HOST: `{}` is neither an IP address nor localhost: {} is used",
                    shown(&host),
                    address.ip()
                )),
            }
        }
        if let Some(port) = env("OTEL_EXPORTER_PROMETHEUS_PORT") {
            match port.trim().parse() {
                Ok(port) => address.set_port(port),
                Err(_) => self.warn(format!(
                    "OTEL_EXPORTER_PROMETHEUS_PORT: `{}` is not a port, 0 to 65535: {} is used",
                    shown(&port),
                    address.port()
                )),
            }
        }
        self.metrics = Some(address);
    }
}

/// Names other than this one would have to be looked up, which may take long and change.
fn ip(host: &str) -> Option<IpAddr> {
    if host == "localhost" {
        return Some(Ipv4Addr::LOCALHOST.into());
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    match bare {
        Some(address) => address.parse().ok().map(IpAddr::V6),
        None => host.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{applied, settings};
    use super::*;

    #[test]
    fn the_host_is_an_address_or_localhost() {
        for (host, expected) in [
            ("localhost", "127.0.0.1:9464"),
            ("LocalHost", "127.0.0.1:9464"),
            ("0.0.0.0", "0.0.0.0:9464"),
            ("::1", "[::1]:9464"),
            ("[::1]", "[::1]:9464"),
            (" 127.0.0.2 ", "127.0.0.2:9464"),
        ] {
            let found = settings(&[("OTEL_EXPORTER_PROMETHEUS_HOST", host)]);
            assert_eq!(found.metrics.unwrap().to_string(), expected);
            assert_eq!(found.warnings, [""; 0], "{host}");
        }
        for host in ["metrics.example", "127.0.0.1:9464", "[127.0.0.1]", "[::1", "::1]", "localhost."] {
            let found = settings(&[("OTEL_EXPORTER_PROMETHEUS_HOST", host)]);
            assert_eq!(found.metrics.unwrap().to_string(), "127.0.0.1:9464");
            assert_eq!(
                found.warnings,
                [format!(
                    "OTEL_EXPORTER_PROMETHEUS_HOST: `{host}` is neither an IP address nor localhost: 127.0.0.1 is used"
                )]
            );
        }
    }

    #[test]
    fn the_port_is_a_number() {
        for (port, expected) in [("9999", 9999), (" 1 ", 1), ("0", 0), ("65535", 65535)] {
            let found = settings(&[("OTEL_EXPORTER_PROMETHEUS_PORT", port)]);
            assert_eq!(found.metrics.unwrap().port(), expected);
            assert_eq!(found.warnings, [""; 0], "{port}");
        }
        for port in ["many", "-1", "65536", "9464/tcp"] {
            let found = settings(&[("OTEL_EXPORTER_PROMETHEUS_PORT", port)]);
            assert_eq!(found.metrics.unwrap().port(), 9464);
            let expected =
                format!("OTEL_EXPORTER_PROMETHEUS_PORT: `{port}` is not a port, 0 to 65535: 9464 is used");
            assert_eq!(found.warnings, [expected]);
        }
    }

    #[test]
    fn both_move_what_is_served_and_nothing_that_is_not() {
        let both = [("OTEL_EXPORTER_PROMETHEUS_HOST", "::1"), ("OTEL_EXPORTER_PROMETHEUS_PORT", "1")];
        assert_eq!(settings(&both).metrics.unwrap().to_string(), "[::1]:1");
        let nowhere = Settings { metrics: None, ..Settings::default() };
        assert_eq!(applied(nowhere, &both).metrics, None);
    }
}

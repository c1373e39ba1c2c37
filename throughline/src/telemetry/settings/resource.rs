//! What the service is called and said to be: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`, `SERVICE_NAME`,
//! `ENVIRONMENT`.

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::resource::TelemetryResourceDetector;
use percent_encoding::percent_decode_str;

use super::{Env, Settings, list, shown};

const NAME: &str = "service.name";
const VERSION: &str = "service.version";
const ENVIRONMENT: &str = "deployment.environment.name";
/// What the SDK says of itself.
const SDK: &str = "telemetry.sdk.";

// === impl Settings ===

impl Settings {
    pub(super) fn apply_resource(&mut self, env: Env<'_>) {
        let mut name = None;
        for (at, entry) in list(&env("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default()).enumerate() {
            match attribute(entry) {
                Ok((key, value)) if key == NAME && !value.is_empty() => name = Some(value),
                Ok((key, value)) => self.describe(key, value),
                Err(why) => {
                    self.warn(format!("OTEL_RESOURCE_ATTRIBUTES: entry {} {why}: left out", at + 1));
                }
            }
        }
        if let Some(name) = env("OTEL_SERVICE_NAME").or(name).or_else(|| env("SERVICE_NAME")) {
            self.service_name = name;
        }
        self.environment = env("ENVIRONMENT").or(self.environment.take());
    }

    fn describe(&mut self, key: String, value: String) {
        if key == NAME {
            self.warn("OTEL_RESOURCE_ATTRIBUTES: `service.name` is empty: left out".to_owned());
        } else if key.starts_with(SDK) || key == VERSION && self.service_version.is_some() {
            let key = shown(&key);
            self.warn(format!("OTEL_RESOURCE_ATTRIBUTES: `{key}` is set by the program: left out"));
        } else if key == VERSION {
            self.service_version = Some(value);
        } else {
            self.attributes.retain(|(known, _)| *known != key);
            self.attributes.push((key, value));
        }
    }

    /// What is running, for `build_info` and traces.
    pub(in crate::telemetry) fn version(&self) -> &str {
        self.service_version.as_deref().unwrap_or(env!("CARGO_PKG_VERSION"))
    }

    /// Who sends the spans. Made from nothing: the SDK's own way reads the process's environment, and reads it
    /// differently.
    pub(in crate::telemetry) fn resource(&self) -> Resource {
        let attributes = self.attributes.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        let environment = self.environment.clone().map(|name| KeyValue::new(ENVIRONMENT, name));
        Resource::builder_empty()
            .with_detector(Box::new(TelemetryResourceDetector))
            .with_attributes(attributes)
            .with_attributes(environment)
            .with_attribute(KeyValue::new(VERSION, self.version().to_owned()))
            .with_service_name(self.service_name.clone())
            .build()
    }
}

/// `key=value`, both percent-encoded where they hold what separates.
fn attribute(entry: &str) -> Result<(String, String), &'static str> {
    let (key, value) = entry.split_once('=').ok_or("has no `=`")?;
    let (key, value) = (decoded(key.trim())?, decoded(value.trim())?);
    if key.is_empty() { Err("has no name before its `=`") } else { Ok((key, value)) }
}

fn decoded(text: &str) -> Result<String, &'static str> {
    let digits = |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit());
    if !text.split('%').skip(1).all(digits) {
        return Err("has a `%` without two hexadecimal digits after it");
    }
    let text = percent_decode_str(text).decode_utf8().map_err(|_| "is not UTF-8 once decoded")?;
    if text.chars().any(char::is_control) { Err("holds control characters") } else { Ok(text.into_owned()) }
}

#[cfg(test)]
mod tests {
    use opentelemetry::Key;

    use super::super::tests::{applied, settings};
    use super::*;

    fn said(settings: &Settings, key: &'static str) -> Option<String> {
        settings.resource().get(&Key::from_static_str(key)).map(|value| value.to_string())
    }

    #[test]
    fn the_service_name_has_an_order() {
        let (standard, list, own) = (
            ("OTEL_SERVICE_NAME", "standard"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=listed"),
            ("SERVICE_NAME", "own"),
        );
        for (variables, expected) in [
            (&[standard, list, own][..], "standard"),
            (&[list, own], "listed"),
            (&[own], "own"),
            (&[], "throughline"),
        ] {
            let found = settings(variables);
            assert_eq!(said(&found, NAME).as_deref(), Some(expected));
            assert_eq!(found.service_name, expected);
            assert_eq!(found.warnings, [""; 0]);
        }
        let empty = settings(&[("OTEL_RESOURCE_ATTRIBUTES", "service.name="), own]);
        assert_eq!(empty.service_name, "own");
        assert_eq!(empty.warnings, ["OTEL_RESOURCE_ATTRIBUTES: `service.name` is empty: left out"]);
    }

    #[test]
    fn attributes_are_decoded() {
        let found = settings(&[(
            "OTEL_RESOURCE_ATTRIBUTES",
            " team = llm%2Cinfra%3D1 ,note=a b=c,place=Z%C3%BCrich,empty=,k%20y=v,,team=last",
        )]);
        assert_eq!(found.warnings, [""; 0]);
        let expected =
            [("note", "a b=c"), ("place", "Zürich"), ("empty", ""), ("k y", "v"), ("team", "last")];
        assert_eq!(found.attributes.len(), expected.len());
        for (key, value) in expected {
            assert_eq!(said(&found, key).as_deref(), Some(value), "{key}");
        }
        assert_eq!(said(&found, "telemetry.sdk.language").as_deref(), Some("rust"));
    }

    #[test]
    fn what_cannot_be_read_is_left_out_alone_and_its_value_is_not_shown() {
        for (entry, why) in [
            ("s3cret", "has no `=`"),
            ("=s3cret", "has no name before its `=`"),
            ("k=s3cret%2", "has a `%` without two hexadecimal digits after it"),
            ("k=s3cret%zz", "has a `%` without two hexadecimal digits after it"),
            ("k=s3cret%", "has a `%` without two hexadecimal digits after it"),
            ("k=s3cret%FF", "is not UTF-8 once decoded"),
            ("k=s3cret%0A", "holds control characters"),
            ("k%00=s3cret", "holds control characters"),
        ] {
            let value = format!("a=1,{entry},b=2");
            let found = settings(&[("OTEL_RESOURCE_ATTRIBUTES", &value)]);
            assert_eq!(found.warnings, [format!("OTEL_RESOURCE_ATTRIBUTES: entry 2 {why}: left out")]);
            assert_eq!(found.attributes.len(), 2, "{entry}");
        }
    }

    #[test]
    fn what_the_program_says_of_itself_is_not_overruled() {
        let variables = [("OTEL_RESOURCE_ATTRIBUTES", "service.version=9,telemetry.sdk.name=mine")];
        let own = Settings { service_version: Some("7.1".to_owned()), ..Settings::default() };
        let found = applied(own, &variables);
        assert_eq!((found.version(), said(&found, VERSION).as_deref()), ("7.1", Some("7.1")));
        assert_eq!(said(&found, "telemetry.sdk.name").as_deref(), Some("opentelemetry"));
        assert_eq!(
            found.warnings,
            [
                "OTEL_RESOURCE_ATTRIBUTES: `service.version` is set by the program: left out",
                "OTEL_RESOURCE_ATTRIBUTES: `telemetry.sdk.name` is set by the program: left out",
            ]
        );
        let silent = settings(&variables);
        assert_eq!(silent.version(), "9", "a program that says nothing is what the environment says");
    }

    #[test]
    fn the_environment_has_a_variable_of_its_own() {
        let list = ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=staging");
        assert_eq!(said(&settings(&[list]), ENVIRONMENT).as_deref(), Some("staging"));
        assert_eq!(
            said(&settings(&[list, ("ENVIRONMENT", "production")]), ENVIRONMENT).as_deref(),
            Some("production")
        );
        assert_eq!(said(&settings(&[]), ENVIRONMENT), None, "unset is not development");
        let developing = ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=development");
        assert_eq!(
            settings(&[developing]).delivery.traces,
            [],
            "an attribute is no request for console traces"
        );
    }
}

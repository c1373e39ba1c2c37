//! Values that are named in the file and stand elsewhere: `env:NAME` and `file:PATH`.
//!
//! No message repeats what was written, unless its form shows that it is a name: a key that somebody put
//! behind `env:` by mistake must not end in a log.

use std::path::Path;

use secrecy::SecretString;
use toml::{Spanned, Value};

use super::check::Check;
use super::read;

/// The longest secret file, in bytes.
const LONGEST: u64 = 64 * 1024;

/// Looks up what `key` refers to.
pub(super) fn read(check: &mut Check<'_>, key: &str, written: &Spanned<Value>) -> Option<SecretString> {
    match look_up(check, key, written.get_ref().as_str()) {
        Ok(secret) => {
            check.marks.read(secrecy::ExposeSecret::expose_secret(&secret).as_bytes());
            Some(secret)
        }
        Err(problem) => {
            check.refuse(written.span(), problem);
            None
        }
    }
}

fn look_up(check: &Check<'_>, key: &str, reference: Option<&str>) -> Result<SecretString, String> {
    let reference =
        reference.ok_or_else(|| format!("`{key}` is not text: write \"env:NAME\" or \"file:PATH\""))?;
    resolve(key, reference, check.dir, check.env)
}

/// What `reference` refers to, as the value of `key`. A variable is asked from `env`, a file is looked for in `dir`.
///
/// # Errors
/// When there is no such thing, or nothing that a header can carry.
pub(crate) fn resolve(
    key: &str,
    reference: &str,
    dir: &Path,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<SecretString, String> {
    if let Some(name) = reference.strip_prefix("env:") {
        let place = format!("the environment variable{}", shown(name, is_conventional(name)));
        let value = if name.is_empty() { None } else { env(name) };
        usable(key, value.ok_or(format!("{place} of `{key}` is not set"))?, &place)
    } else if let Some(path) = reference.strip_prefix("file:") {
        let is_path = ["/", "./", "../"].iter().any(|start| path.starts_with(start));
        let place = format!("the file{}", shown(path, is_path));
        let bytes = read::at_most(LONGEST, &dir.join(path))
            .map_err(|why| format!("{place} of `{key}` cannot be read: {why}"))?;
        let value = String::from_utf8(bytes).map_err(|_| format!("{place} of `{key}` is not utf-8"))?;
        usable(key, value, &place)
    } else if reference.is_empty() {
        Err(format!("`{key}` is empty: write \"env:NAME\" or \"file:PATH\", or remove the key"))
    } else {
        let what = if key == "password" { key } else { "key" };
        Err(format!(
            "`{key}` holds the {what} itself: put it in a variable or a file and write \"env:NAME\" or \
             \"file:PATH\""
        ))
    }
}

/// A secret that can be sent in a header. Files and shells like to add a newline at the end.
fn usable(key: &str, value: String, place: &str) -> Result<SecretString, String> {
    let secret = SecretString::from(value);
    let value = secrecy::ExposeSecret::expose_secret(&secret).trim_end_matches(['\r', '\n']);
    if value.trim().is_empty() {
        Err(format!("{place} of `{key}` is empty"))
    } else if !value.bytes().all(|byte| byte.is_ascii_graphic()) {
        Err(format!("{place} of `{key}` holds spaces or characters that are not visible ascii"))
    } else {
        Ok(SecretString::from(value))
    }
}

fn shown(reference: &str, is_name: bool) -> String {
    if is_name { format!(" `{reference}`") } else { String::new() }
}

fn is_conventional(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
        && name.starts_with(|c: char| c.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use secrecy::ExposeSecret as _;

    use crate::config::fixture::refused;
    use crate::config::{Config, Provider};

    const PROVIDER: &str = "[providers.p.openai]\nbase_url = \"https://h/v1\"\n";

    /// The line that is said about an `api_key`, after checking that the excerpt hides all of it.
    fn message(value: &str) -> String {
        let shown = refused(&format!("{PROVIDER}api_key = {value}\n"));
        let stars = "*".repeat(value.len());
        let (head, excerpt) = shown.split_once('\n').unwrap();
        let marks = stars.replace('*', "^");
        assert_eq!(excerpt, format!("    3 | api_key = {stars}\n      |           {marks}"));
        head.strip_prefix("t.toml:3:11: ").unwrap().to_owned()
    }

    /// What becomes of an `api_key` of `file:./key` when that file holds `bytes`.
    fn from_file(bytes: &[u8]) -> Result<String, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("key"), bytes).unwrap();
        let path = dir.path().join("t.toml");
        let rest = crate::config::fixture::SMALLEST;
        std::fs::write(&path, format!("{PROVIDER}api_key = \"file:./key\"\n{rest}")).unwrap();
        load(&path)
    }

    fn load(path: &Path) -> Result<String, String> {
        let mut config = Config::load(path, &|_| None).map_err(|errors| {
            let shown = errors.to_string();
            shown.lines().next().unwrap().rsplit_once("3:11: ").unwrap().1.to_owned()
        })?;
        match config.providers.remove("p") {
            Some(Provider::OpenAi(config)) => Ok(config.api_key.unwrap().expose_secret().to_owned()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_key_in_plain_text_is_refused_and_not_shown() {
        let expected = "`api_key` holds the key itself: put it in a variable or a file and write \"env:NAME\" or \
                        \"file:PATH\"";
        assert_eq!(message("\"sk-live-123\""), expected);
        assert_eq!(message("\" env:KEY\""), expected);
    }

    #[test]
    fn a_key_that_is_not_text_is_refused_and_not_shown() {
        for value in ["123456789", "true", "[\"sk-live-123\"]", "{ env = \"KEY\" }", "1.5", "2026-01-01"] {
            let shown = refused(&format!("{PROVIDER}api_key = {value}\n"));
            assert!(
                shown
                    .starts_with("t.toml:3:11: `api_key` is not text: write \"env:NAME\" or \"file:PATH\"\n")
            );
            assert!(!shown.contains("sk-live") && !shown.contains("123456789"), "{shown}");
        }
    }

    #[test]
    fn an_empty_key_is_refused() {
        assert_eq!(
            message("\"\""),
            "`api_key` is empty: write \"env:NAME\" or \"file:PATH\", or remove the key"
        );
        assert_eq!(message("\"env:EMPTY\""), "the environment variable `EMPTY` of `api_key` is empty");
    }

    #[test]
    fn a_variable_that_is_not_set_is_named() {
        assert_eq!(message("\"env:NO_KEY\""), "the environment variable `NO_KEY` of `api_key` is not set");
    }

    #[test]
    fn what_does_not_look_like_a_variable_is_not_repeated() {
        for value in ["\"env:sk-live-123\"", "\"env:\"", "\"env:abc\"", "\"env:123\""] {
            assert_eq!(message(value), "the environment variable of `api_key` is not set");
        }
    }

    #[test]
    fn a_key_that_no_header_can_carry_is_refused_and_not_shown() {
        assert_eq!(
            message("\"env:ODD\""),
            "the environment variable `ODD` of `api_key` holds spaces or characters that are not visible ascii"
        );
    }

    #[test]
    fn a_file_is_looked_for_beside_the_configuration() {
        assert_eq!(from_file(b"sk-live-123\r\n"), Ok("sk-live-123".to_owned()));
    }

    #[test]
    fn a_file_that_cannot_be_used_is_refused() {
        let refusal = |bytes: &[u8]| from_file(bytes).unwrap_err();
        assert_eq!(refusal(b""), "the file `./key` of `api_key` is empty");
        assert_eq!(refusal(b" \n"), "the file `./key` of `api_key` is empty");
        assert_eq!(refusal(b"\xff"), "the file `./key` of `api_key` is not utf-8");
        assert_eq!(
            refusal(b"a\nb"),
            "the file `./key` of `api_key` holds spaces or characters that are not visible ascii"
        );
        assert_eq!(
            refusal(&[b'x'; 70_000]),
            "the file `./key` of `api_key` cannot be read: it is longer than 65536 bytes"
        );
    }

    #[test]
    fn a_file_that_is_not_there_is_refused_and_named_if_it_looks_like_a_path() {
        assert_eq!(
            message("\"file:/no/such/key\""),
            "the file `/no/such/key` of `api_key` cannot be read: there is no such file"
        );
        assert_eq!(
            message("\"file:sk-live-123\""),
            "the file of `api_key` cannot be read: there is no such file"
        );
        assert_eq!(
            message("\"file:./\""),
            "the file `./` of `api_key` cannot be read: it is a directory, not a file"
        );
    }
}

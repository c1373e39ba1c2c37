//! Reads small files: the configuration itself and the secrets that it names.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

/// Reads a file that must not be longer than `most` bytes.
///
/// # Errors
/// In words: why the file cannot be read.
pub(crate) fn at_most(most: u64, path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut bytes));
    match read {
        Ok(length) if length as u64 > most => Err(format!("it is longer than {most} bytes")),
        Ok(_) => Ok(bytes),
        Err(error) => Err(reason(&error)),
    }
}

/// Why a file cannot be read, in words.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".to_owned(),
        ErrorKind::PermissionDenied => "permission denied".to_owned(),
        ErrorKind::IsADirectory => "it is a directory, not a file".to_owned(),
        kind => kind.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_why_a_file_cannot_be_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(at_most(9, &dir.path().join("none")), Err("there is no such file".to_owned()));
        assert_eq!(at_most(9, dir.path()), Err("it is a directory, not a file".to_owned()));
        // A test that runs as root is refused no file, so the words are asked for directly.
        assert_eq!(reason(&ErrorKind::PermissionDenied.into()), "permission denied");
        assert_eq!(reason(&ErrorKind::TimedOut.into()), "timed out");
    }

    #[test]
    fn stops_reading_a_file_that_is_too_long() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "123456789").unwrap();
        assert_eq!(at_most(9, &path), Ok(b"123456789".to_vec()));
        assert_eq!(at_most(8, &path), Err("it is longer than 8 bytes".to_owned()));
    }
}

//! The files that the security of the endpoint is read from, and whether they have changed.

use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

/// The longest file, in bytes.
const LONGEST: u64 = 1 << 20;

/// What was read, so that a change is noticed. By content: a new file may be as old and as long as the one before.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Files(Vec<(PathBuf, Option<blake3::Hash>)>);

// === impl Files ===

impl Files {
    /// Reads a file and remembers what it was.
    ///
    /// # Errors
    /// In words: why it cannot be read.
    pub(super) fn read(&mut self, path: &Path) -> Result<Vec<u8>, String> {
        let read = read(path);
        self.0.push((path.to_owned(), read.as_deref().ok().map(blake3::hash)));
        read.map_err(|why| format!("`{}` cannot be read: {why}", path.display()))
    }

    /// As [`Files::read`], of a file of text.
    ///
    /// # Errors
    /// In words: why it cannot be read.
    pub(super) fn read_text(&mut self, path: &Path) -> Result<String, String> {
        let bytes = self.read(path)?;
        String::from_utf8(bytes).map_err(|_| format!("`{}` is not utf-8: save it as utf-8", path.display()))
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of the files is not what it was.
    pub(super) fn have_changed(&self) -> bool {
        self.0.iter().any(|(path, known)| read(path).ok().as_deref().map(blake3::hash) != *known)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LONGEST + 1).read_to_end(&mut bytes));
    match read {
        Ok(length) if length as u64 > LONGEST => Err(format!("it is longer than {LONGEST} bytes")),
        Ok(_) => Ok(bytes),
        Err(error) => Err(match error.kind() {
            ErrorKind::NotFound => "there is no such file".to_owned(),
            ErrorKind::PermissionDenied => "permission denied".to_owned(),
            ErrorKind::IsADirectory => "it is a directory, not a file".to_owned(),
            kind => kind.to_string(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_files_that_change_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let (there, later) = (dir.path().join("there"), dir.path().join("later"));
        std::fs::write(&there, "one").unwrap();
        let mut files = Files::default();
        assert_eq!(files.read_text(&there).unwrap(), "one");
        let missing = files.read(&later).unwrap_err();
        assert_eq!(missing, format!("`{}` cannot be read: there is no such file", later.display()));
        assert!(!files.have_changed());
        std::fs::write(&there, "two").unwrap();
        assert!(files.have_changed(), "of the same length and, as it may be, the same time");
        std::fs::write(&there, "one").unwrap();
        assert!(!files.have_changed());
        std::fs::write(&later, "").unwrap();
        assert!(files.have_changed());
    }

    #[test]
    fn refuses_what_is_too_long_no_text_or_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut files = Files::default();
        std::fs::write(&path, vec![b'x'; (1 << 20) + 1]).unwrap();
        assert!(files.read(&path).unwrap_err().ends_with("it is longer than 1048576 bytes"));
        std::fs::write(&path, b"\xff").unwrap();
        assert!(files.read_text(&path).unwrap_err().ends_with("is not utf-8: save it as utf-8"));
        assert!(files.read(dir.path()).unwrap_err().ends_with("it is a directory, not a file"));
    }
}

//! Writes a pack into a folder, and leaves alone what somebody else wrote there.
//!
//! A list of sums beside the files says what an earlier export wrote. What still has its sum is ours: it is overwritten, or
//! removed when the pack no longer has it. Everything else needs `--force`. Nothing is written before all of it is decided.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::command::Ended;
use super::pack::File;

/// The list, as `b3sum` writes it.
const SUMS: &str = ".throughline-ops";

/// What an export did.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Done {
    folder: PathBuf,
    written: usize,
    unchanged: usize,
    removed: Vec<String>,
    /// No longer in the pack, but changed by somebody: left.
    left: Vec<String>,
}

/// What becomes of one file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Step {
    Write,
    Leave,
    InTheWay,
}

/// Writes `files` below `folder`.
///
/// # Errors
/// `Refused` when files of somebody else are in the way and it is not by `force`; `Failed` when one cannot be read or written.
pub(crate) fn write(folder: &Path, files: &[File], force: bool) -> Result<Done, Ended> {
    let sums = read_sums(folder)?;
    let mut steps = Vec::new();
    for file in files {
        let found = read(&folder.join(&file.path))?;
        steps.push(match found {
            None => Step::Write,
            Some(bytes) if bytes == file.text.as_bytes() => Step::Leave,
            Some(bytes) if force || sums.get(&file.path) == Some(&sum(&bytes)) => Step::Write,
            Some(_) => Step::InTheWay,
        });
    }
    let decided = || files.iter().zip(&steps);
    let of = |step: Step| decided().filter(move |(_, decided)| **decided == step).map(|(file, _)| file);
    refuse(folder, of(Step::InTheWay))?;

    for file in of(Step::Write) {
        put(&folder.join(&file.path), &file.text)?;
    }
    let mut done = Done {
        folder: folder.to_owned(),
        written: of(Step::Write).count(),
        unchanged: of(Step::Leave).count(),
        ..Done::default()
    };
    done.clear(&sums, files)?;
    put(&folder.join(SUMS), &list(files))?;
    Ok(done)
}

fn refuse<'a>(folder: &Path, in_the_way: impl Iterator<Item = &'a File>) -> Result<(), Ended> {
    let names: Vec<_> = in_the_way.map(|file| file.path.as_str()).collect();
    if names.is_empty() {
        return Ok(());
    }
    Err(Ended::Refused(format!(
        "nothing is written: in `{}` these files were changed, or are not from here: {}\nMove them away, export to \
         another folder, or overwrite them with --force.",
        folder.display(),
        names.join(", ")
    )))
}

fn sum(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

fn list(files: &[File]) -> String {
    let mut list = String::new();
    for file in files {
        writeln!(list, "{}  {}", sum(file.text.as_bytes()), file.path)
            .expect("writing to a string cannot fail");
    }
    list
}

/// The sums of an earlier export, by path. A path that leads out of the folder is none that was written from here.
fn read_sums(folder: &Path) -> Result<BTreeMap<String, String>, Ended> {
    let list = read(&folder.join(SUMS))?.unwrap_or_default();
    let list = String::from_utf8_lossy(&list);
    let lines = list.lines().filter_map(|line| line.split_once("  "));
    let inside = |path: &str| !path.starts_with('/') && path.split('/').all(|part| part != "..");
    Ok(lines.filter(|(_, path)| inside(path)).map(|(sum, path)| (path.to_owned(), sum.to_owned())).collect())
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Ended> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("read", path, &error)),
    }
}

/// In one rename, so that no reader ever sees half a file.
fn put(path: &Path, text: &str) -> Result<(), Ended> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder).map_err(|error| failed("make the folder of", path, &error))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let half = folder.join(format!(".{name}.new"));
    fs::write(&half, text)
        .and_then(|()| fs::rename(&half, path))
        .inspect_err(|_| drop(fs::remove_file(&half)))
        .map_err(|error| failed("write", path, &error))
}

fn failed(what: &str, path: &Path, error: &std::io::Error) -> Ended {
    Ended::Failed(format!("cannot {what} `{}`: {error}", path.display()))
}

// === impl Done ===

impl Done {
    /// Removes what an earlier export wrote and this pack no longer has.
    fn clear(&mut self, sums: &BTreeMap<String, String>, files: &[File]) -> Result<(), Ended> {
        let now: BTreeSet<_> = files.iter().map(|file| file.path.as_str()).collect();
        for (path, was) in sums.iter().filter(|(path, _)| !now.contains(path.as_str())) {
            let place = self.folder.join(path);
            match read(&place)? {
                None => {}
                Some(bytes) if sum(&bytes) == *was => {
                    fs::remove_file(&place).map_err(|error| failed("remove", &place, &error))?;
                    self.removed.push(path.clone());
                }
                Some(_) => self.left.push(path.clone()),
            }
        }
        Ok(())
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}: {} files written, {} unchanged",
            self.folder.display(),
            self.written,
            self.unchanged
        )?;
        for path in &self.removed {
            writeln!(f, "removed {path}: no longer part of it")?;
        }
        for path in &self.left {
            writeln!(f, "left {path}: no longer part of it, but it was changed")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(files: &[(&str, &str)]) -> Vec<File> {
        files.iter().map(|(path, text)| File::new(*path, *text)).collect()
    }

    fn text(folder: &Path, path: &str) -> Option<String> {
        fs::read_to_string(folder.join(path)).ok()
    }

    fn refused(outcome: Result<Done, Ended>) -> String {
        match outcome {
            Err(Ended::Refused(why)) => why,
            Err(Ended::Failed(why)) => panic!("failed: {why}"),
            Ok(done) => panic!("wrote: {done}"),
        }
    }

    fn done(outcome: Result<Done, Ended>) -> Done {
        outcome.unwrap_or_else(|ended| match ended {
            Ended::Refused(why) | Ended::Failed(why) => panic!("{why}"),
        })
    }

    #[test]
    fn writes_again_what_it_wrote_itself() {
        let folder = tempfile::tempdir().unwrap();
        done(write(folder.path(), &pack(&[("a", "1"), ("b/c", "2")]), false));
        let again = done(write(folder.path(), &pack(&[("a", "1"), ("b/c", "3")]), false));
        assert_eq!((again.written, again.unchanged), (1, 1));
        assert_eq!(text(folder.path(), "b/c").as_deref(), Some("3"));
    }

    #[test]
    fn writes_nothing_at_all_when_somebody_elses_file_is_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("b"), "mine").unwrap();
        let why = refused(write(folder.path(), &pack(&[("a", "1"), ("b", "2")]), false));
        assert!(why.contains("not from here: b\n") && why.contains("--force"), "{why}");
        assert_eq!(text(folder.path(), "a"), None);

        done(write(folder.path(), &pack(&[("a", "1"), ("b", "2")]), true));
        assert_eq!(text(folder.path(), "b").as_deref(), Some("2"));
    }

    #[test]
    fn a_file_that_was_edited_is_somebody_elses_until_it_says_the_same() {
        let folder = tempfile::tempdir().unwrap();
        done(write(folder.path(), &pack(&[("a", "1")]), false));
        fs::write(folder.path().join("a"), "2").unwrap();
        assert!(refused(write(folder.path(), &pack(&[("a", "3")]), false)).contains(": a\n"));
        assert_eq!(done(write(folder.path(), &pack(&[("a", "2")]), false)).unchanged, 1);
    }

    #[test]
    fn removes_what_it_no_longer_has_unless_it_was_changed() {
        let folder = tempfile::tempdir().unwrap();
        done(write(folder.path(), &pack(&[("a", "1"), ("b", "2"), ("c", "3")]), false));
        fs::write(folder.path().join("c"), "mine").unwrap();
        let done = done(write(folder.path(), &pack(&[("a", "1")]), false));
        assert_eq!((done.removed, done.left), (vec!["b".to_owned()], vec!["c".to_owned()]));
        assert_eq!(text(folder.path(), "b"), None);
        assert_eq!(text(folder.path(), "c").as_deref(), Some("mine"));
    }

    #[test]
    fn a_list_that_was_tampered_with_removes_nothing_outside() {
        let folder = tempfile::tempdir().unwrap();
        let (outside, inside) = (folder.path().join("mine"), folder.path().join("ops"));
        fs::write(&outside, "mine").unwrap();
        fs::create_dir(&inside).unwrap();
        fs::write(inside.join(SUMS), format!("{}  ../mine\n", sum(b"mine"))).unwrap();
        done(write(&inside, &pack(&[("a", "1")]), false));
        assert!(outside.exists());
    }

    #[test]
    fn a_file_where_a_folder_must_be_is_named() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("b"), "").unwrap();
        let Err(Ended::Failed(why)) = write(folder.path(), &pack(&[("b/c", "1")]), false) else {
            panic!("it cannot be written")
        };
        assert!(why.starts_with("cannot ") && why.contains("b/c"), "{why}");
    }
}

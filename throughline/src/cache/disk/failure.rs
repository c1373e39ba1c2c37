//! What can be wrong with the file, in words, and whether it can go on being used.

use std::io;
use std::path::Path;

use redb::{DatabaseError, StorageError};

use crate::error::{Error, Kind};

/// Why the file cannot be used now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Another process has it.
    Locked,
    /// It is a file of somebody else.
    Foreign,
    /// It was ours, and is not whole any more.
    Damaged,
    /// The path leads to it no more.
    Gone,
    /// The operating system refused something.
    System(&'static str),
}

// === impl Failure ===

impl Failure {
    /// The failure of a store in the file at `path`.
    pub(super) fn of(&self, path: &Path) -> Error {
        let path = path.display();
        Error::new(
            Kind::Store,
            match self {
                Self::Locked => format!("another process has {path} open: a file is one process's at a time"),
                Self::Foreign => {
                    format!("{path} is not a cache of this version and is left as it is: give another path")
                }
                Self::Damaged => format!("{path} was damaged: it is set aside and begun anew"),
                Self::Gone => format!("{path} was removed or replaced while it was in use"),
                Self::System(what) => format!("{path}: {what}"),
            },
        )
    }
}

/// Why a file could not be opened.
pub(super) fn of_open(error: &DatabaseError) -> Failure {
    match error {
        DatabaseError::DatabaseAlreadyOpen | DatabaseError::LockProtocolMismatch => Failure::Locked,
        DatabaseError::UpgradeRequired(_) => Failure::Foreign,
        DatabaseError::Storage(StorageError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => {
            Failure::Foreign
        }
        DatabaseError::Storage(error) => of_storage(error),
        _ => Failure::System("it could not be opened"),
    }
}

/// Why an open file could not be read or written.
pub(super) fn of_use(error: &redb::Error) -> Failure {
    match error {
        redb::Error::Io(error) => of_system(error),
        redb::Error::Corrupted(_) => Failure::Damaged,
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => {
            Failure::System("it failed before and is opened anew")
        }
        _ => Failure::System("it could not be read or written"),
    }
}

fn of_storage(error: &StorageError) -> Failure {
    match error {
        StorageError::Corrupted(_) => Failure::Damaged,
        StorageError::Io(error) => of_system(error),
        _ => Failure::System("it could not be read or written"),
    }
}

pub(super) fn of_system(error: &io::Error) -> Failure {
    Failure::System(match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "the disk is full",
        io::ErrorKind::FileTooLarge => "the file may not grow any more",
        io::ErrorKind::NotFound => "there is no such folder",
        io::ErrorKind::PermissionDenied => "permission denied",
        io::ErrorKind::ReadOnlyFilesystem => "the file system takes no writes",
        io::ErrorKind::IsADirectory => "it is a directory, not a file",
        io::ErrorKind::NotADirectory => "a part of the path is no directory",
        // The file is shorter than it says.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => return Failure::Damaged,
        _ => "the disk failed",
    })
}

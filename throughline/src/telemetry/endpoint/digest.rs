//! Secrets as digests: what is kept of them, and how two are compared.
//!
//! The digests are keyed with random bytes of this process, so that one that is found in a core dump says
//! nothing about the secret, not even by a list of likely ones.

use std::sync::LazyLock;

use subtle::{Choice, ConstantTimeEq};

static KEY: LazyLock<[u8; 32]> = LazyLock::new(|| {
    let mut key = [0; 32];
    getrandom::fill(&mut key).expect("the system gives random bytes, or nothing with a hash table would run");
    key
});

/// What is kept of a secret.
#[derive(Clone, Copy)]
pub(super) struct Digest([u8; 32]);

// === impl Digest ===

impl Digest {
    /// Of `parts`, one after the other: `["ab", "c"]` and `["a", "bc"]` differ.
    pub(super) fn of(parts: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_keyed(&KEY);
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }

    /// Whether the two are equal, in a time that does not depend on where they differ.
    pub(super) fn is(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_parts_are_equal_and_nothing_else_is() {
        let digest = Digest::of(&[b"ab", b"c"]);
        assert!(bool::from(digest.is(&Digest::of(&[b"ab", b"c"]))));
        for other in [&[b"a".as_slice(), b"bc"][..], &[b"abc"], &[b"ab", b"d"], &[]] {
            assert!(!bool::from(digest.is(&Digest::of(other))), "{other:?}");
        }
    }
}

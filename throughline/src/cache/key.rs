//! Cache keys: a hash over everything that can change the answer.

use std::fmt;

use serde::Serialize;
use smallvec::SmallVec;

use crate::error::ConfigError;

/// A cache key: 192 bits of BLAKE3, so that nobody can find two inputs with one key, and 32 bits each by which the
/// keys of a namespace and of a tenant can be told from others in a store.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

/// Collects what a key depends on. Parts are length-prefixed: `"a" + "bc"` differs from `"ab" + "c"`.
///
/// The name and the schema version of the cache are in it already.
#[must_use = "call `build` to get the key"]
pub struct KeyBuilder {
    parts: Parts,
    namespace: Tag,
    tenant: Tag,
}

enum Parts {
    /// As they are, to be hashed in one go: the state of a hash is larger than most of them, and is moved with the builder.
    Short(SmallVec<[u8; ROOM]>),
    Long(Box<blake3::Hasher>),
}

/// What is hashed in one go at the most: a chunk of BLAKE3.
const SHORT: usize = 1_024;
/// Room for the parts of most keys without memory of their own.
const ROOM: usize = 192;

/// What keys of one namespace, or of one tenant, have in common. It stands for the name and does not tell it.
pub type Tag = [u8; 4];

/// Where the hash ends, and after it the namespace.
const HASH: usize = 24;
const NAMESPACE: usize = 28;

// === impl Key ===

impl Key {
    /// The bits.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The key with these bits, as [`Key::as_bytes`] gave them.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// What it has in common with all keys of its namespace.
    #[must_use]
    pub fn namespace(&self) -> Tag {
        self.0[HASH..NAMESPACE].try_into().expect("it has four bytes")
    }

    /// What it has in common with all keys of its tenant; that of the empty name where none was given.
    #[must_use]
    pub fn tenant(&self) -> Tag {
        self.0[NAMESPACE..].try_into().expect("it has four bytes")
    }
}

/// The tag that keys of the namespace or the tenant of this name have.
#[must_use]
pub fn tag(name: &str) -> Tag {
    *blake3::hash(name.as_bytes()).as_bytes().first_chunk().expect("the hash has 32 bytes")
}

/// As hexadecimal digits.
impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Reads what [`Key`] is displayed as.
impl std::str::FromStr for Key {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let refused = || ConfigError::new("a key has 64 hexadecimal digits");
        // `from_str_radix` takes a sign.
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(refused());
        }
        let mut key = [0; 32];
        for (at, byte) in key.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).map_err(|_| refused())?;
        }
        Ok(Self(key))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:02x}{:02x}{:02x}{:02x}…)", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

// === impl KeyBuilder ===

impl KeyBuilder {
    /// A key in this namespace, for those who use a store without a cache: a cache begins its keys itself.
    pub fn new(namespace: &str, schema: u32) -> Self {
        Self::scoped(namespace, schema, "")
    }

    pub(super) fn scoped(namespace: &str, schema: u32, scope: &str) -> Self {
        let version = [&schema.to_le_bytes(), scope.as_bytes()].concat();
        let builder = Self { parts: Parts::new(), namespace: tag(namespace), tenant: tag("") };
        builder.part(namespace.as_bytes()).part(&version)
    }

    pub(super) fn copy(&self) -> Self {
        Self { parts: self.parts.copy(), namespace: self.namespace, tenant: self.tenant }
    }

    /// Adds whose value it is, by which it can be found in a store. Without it, it is nobody's.
    pub fn tenant(mut self, tenant: &str) -> Self {
        self.tenant = tag(tenant);
        self.text(tenant)
    }

    /// Adds bytes.
    pub fn part(mut self, part: &[u8]) -> Self {
        self.parts.add(&(part.len() as u64).to_le_bytes());
        self.parts.add(part);
        self
    }

    /// Adds text.
    pub fn text(self, text: &str) -> Self {
        self.part(text.as_bytes())
    }

    /// Adds a value by its canonical JSON: the order of map keys does not matter. `None` for a value
    /// that has no JSON form.
    ///
    /// What JSON cannot tell apart has one key: `NaN`, the infinities and `None` are all `null`, and so is
    /// `Some(None)`. Where that matters, use [`KeyBuilder::part`].
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> Option<Self> {
        let canonical = serde_json::to_value(value).and_then(|value| serde_json::to_vec(&value)).ok()?;
        Some(self.part(&canonical))
    }

    /// The key.
    #[must_use]
    pub fn build(self) -> Key {
        let mut key = *self.parts.hash().as_bytes();
        key[HASH..NAMESPACE].copy_from_slice(&self.namespace);
        key[NAMESPACE..].copy_from_slice(&self.tenant);
        Key(key)
    }
}

// === impl Parts ===

impl Parts {
    fn new() -> Self {
        Self::Short(SmallVec::new())
    }

    fn copy(&self) -> Self {
        match self {
            Self::Short(bytes) => Self::Short(SmallVec::from_slice(bytes)),
            Self::Long(hash) => Self::Long(hash.clone()),
        }
    }

    fn add(&mut self, more: &[u8]) {
        match self {
            Self::Short(bytes) if bytes.len() + more.len() <= SHORT => bytes.extend_from_slice(more),
            Self::Short(bytes) => {
                let mut hash = Box::new(blake3::Hasher::new());
                hash.update(bytes).update(more);
                *self = Self::Long(hash);
            }
            Self::Long(hash) => {
                hash.update(more);
            }
        }
    }

    fn hash(&self) -> blake3::Hash {
        match self {
            Self::Short(bytes) => blake3::hash(bytes),
            Self::Long(hash) => hash.finalize(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn builder() -> KeyBuilder {
        KeyBuilder::new("answers", 1)
    }

    #[test]
    fn tells_apart_what_concatenation_would_confuse() {
        assert_ne!(builder().text("a").text("bc").build(), builder().text("ab").text("c").build());
        assert_ne!(builder().text("a b").build(), builder().text("a_b").build());
        assert_ne!(KeyBuilder::new("a", 1).text("b:c").build(), KeyBuilder::new("a:b", 1).text("c").build());
        assert_ne!(builder().build(), KeyBuilder::new("answers", 2).build());
    }

    #[test]
    fn map_order_does_not_matter() {
        let forth: HashMap<_, _> = (0..20).map(|n| (n.to_string(), n)).collect();
        let back: HashMap<_, _> = (0..20).rev().map(|n| (n.to_string(), n)).collect();
        assert_eq!(builder().json(&forth).unwrap().build(), builder().json(&back).unwrap().build());
    }

    #[test]
    fn a_key_says_of_which_namespace_and_tenant_it_is_and_not_their_names() {
        let key = builder().tenant("acme").text("question").build();
        assert_eq!((key.namespace(), key.tenant()), (tag("answers"), tag("acme")));
        assert_eq!(builder().build().tenant(), tag(""));
        assert_eq!(Key::from_bytes(*key.as_bytes()), key);
        assert_eq!(key.to_string().parse::<Key>().unwrap(), key);
        for wrong in ["", "3f", &"+1".repeat(32), &"é".repeat(32)] {
            assert!(wrong.parse::<Key>().is_err(), "{wrong}");
        }
        assert_ne!(builder().tenant("a").text("b").build(), builder().tenant("b").text("a").build());
    }

    #[test]
    fn long_and_short_parts_are_hashed_alike() {
        for length in [0, 1, SHORT - 100, SHORT, SHORT + 1, 5 * SHORT] {
            let text = "x".repeat(length);
            let mut hash = blake3::Hasher::new();
            for part in [&b"answers"[..], &1u32.to_le_bytes(), text.as_bytes(), b"end"] {
                hash.update(&(part.len() as u64).to_le_bytes()).update(part);
            }
            let key = builder().text(&text).copy().text("end").build();
            assert_eq!(key.as_bytes()[..HASH], hash.finalize().as_bytes()[..HASH], "{length}");
        }
    }

    proptest! {
        #[test]
        fn tenants_never_share_a_key(a: String, b: String, question: String) {
            let hash = |tenant: &str| {
                let key = builder().tenant(tenant).text(&question).build();
                *key.as_bytes().first_chunk::<HASH>().unwrap()
            };
            prop_assert_eq!(a == b, hash(&a) == hash(&b));
        }

        #[test]
        fn different_parts_give_different_keys(a: Vec<Vec<u8>>, b: Vec<Vec<u8>>) {
            let key = |parts: &[Vec<u8>]| parts.iter().fold(builder(), |key, part| key.part(part)).build();
            prop_assert_eq!(a == b, key(&a) == key(&b));
        }
    }
}

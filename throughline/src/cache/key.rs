//! Cache keys: a hash over everything that can change the answer.

use std::fmt;

use serde::Serialize;

/// A cache key: 256 bits of BLAKE3, so that nobody can find two inputs with one key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key([u8; 32]);

/// Collects what a key depends on. Parts are length-prefixed: `"a" + "bc"` differs from `"ab" + "c"`.
///
/// The name and the schema version of the cache are in it already.
#[must_use = "call `build` to get the key"]
pub struct KeyBuilder(blake3::Hasher);

// === impl Key ===

impl Key {
    /// The bits.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
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
        Self(blake3::Hasher::new()).part(namespace.as_bytes()).part(&version)
    }

    pub(super) fn copy(&self) -> Self {
        Self(self.0.clone())
    }

    /// Adds bytes.
    pub fn part(mut self, part: &[u8]) -> Self {
        self.0.update(&(part.len() as u64).to_le_bytes());
        self.0.update(part);
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
        Key(*self.0.finalize().as_bytes())
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

    proptest! {
        #[test]
        fn different_parts_give_different_keys(a: Vec<Vec<u8>>, b: Vec<Vec<u8>>) {
            let key = |parts: &[Vec<u8>]| parts.iter().fold(builder(), |key, part| key.part(part)).build();
            prop_assert_eq!(a == b, key(&a) == key(&b));
        }
    }
}

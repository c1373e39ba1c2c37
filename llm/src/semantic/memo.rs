//! Directions of late, so that a question that comes again, or many times at once, is not paid for again.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use throughline::{Key, KeyBuilder};

use super::vector::Vector;

/// The directions of the last texts, those of each scope for itself: what is paid for says that somebody has asked.
#[derive(Debug, Default)]
pub(super) struct Memo(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    vectors: HashMap<Key, Vector>,
    order: VecDeque<Key>,
}

/// How many directions are kept: at most 8 MiB of them.
const MOST: usize = 1024;

// === impl Memo ===

impl Memo {
    pub(super) fn get(&self, scope: &Key, text: &str) -> Option<Vector> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).vectors.get(&key(scope, text)).cloned()
    }

    pub(super) fn keep(&self, scope: &Key, text: &str, vector: &Vector) {
        let key = key(scope, text);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.vectors.insert(key, vector.clone()).is_none() {
            known.order.push_back(key);
        }
        if known.order.len() > MOST
            && let Some(oldest) = known.order.pop_front()
        {
            known.vectors.remove(&oldest);
        }
    }
}

fn key(scope: &Key, text: &str) -> Key {
    KeyBuilder::new("embedding", 0).part(scope.as_bytes()).text(text).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_texts_are_known_and_no_more() {
        let (memo, vector) = (Memo::default(), Vector::new(&[1.0]).unwrap());
        let scope = KeyBuilder::new("test", 0).build();
        for n in 0..=MOST {
            memo.keep(&scope, &n.to_string(), &vector);
            memo.keep(&scope, &n.to_string(), &vector);
        }
        assert_eq!(memo.get(&scope, "0"), None);
        assert!(memo.get(&scope, "1").is_some() && memo.get(&scope, &MOST.to_string()).is_some());
        let known = memo.0.lock().unwrap();
        assert_eq!((known.vectors.len(), known.order.len()), (MOST, MOST));
    }
}

//! What two prompts must have in common before it is asked how alike they are.
//!
//! An embedder takes "refund 50" and "refund 500" for nearly the same. So of both prompts there is noted what changes
//! an answer and hardly the embedding: signs that are not prose, line breaks with what is indented, numbers with what
//! they count, names, identifiers, quotes and negations, all in their order; and words that exclude each other. Rules
//! that are too strict cost a hit, and the others an answer that is wrong: they are meant to be too strict.
//!
//! What they cannot see: a name in lower case that no list has, and a swap of two words that exclude each other in a
//! way that no list knows. That is what the threshold has to keep apart.

use super::signs::signs;
use super::tokens::{Token, tokens};
use super::words;

/// What of a prompt must be the same. It holds hashes, and nothing can be read from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    /// Signs and line breaks, then numbers, names, identifiers, quotes and negations, in their order.
    exact: [u8; 16],
    /// The groups of words that exclude each other, and which of them there are, in their order.
    groups: Box<[(u8, Box<[u8]>)]>,
    /// All words.
    words: Box<[u32]>,
    /// Words that may be the opposite of another one, each with that.
    opposites: Box<[(u32, u32)]>,
}

/// Collects what is found in a prompt.
#[derive(Default)]
struct Collect {
    exact: blake3::Hasher,
    groups: Vec<(u8, Vec<u8>)>,
    words: Vec<u32>,
    opposites: Vec<(u32, u32)>,
    /// Whether what came before is a number, which the next word may be the unit of.
    counts: bool,
    /// Whether what came before is `how`.
    asks: bool,
    /// Whether an `I` behind what came before is a number.
    ranks: bool,
}

// === impl Marks ===

impl Marks {
    /// What of `prompt` must be the same.
    #[must_use]
    pub fn of(prompt: &str) -> Self {
        let mut found = Collect::default();
        signs(prompt, |kind, text| found.exact(kind, text));
        Self::with(found, prompt)
    }

    /// The same of an answer, which sets its signs and lines as it likes.
    pub(super) fn of_answer(text: &str) -> Self {
        Self::with(Collect::default(), text)
    }

    fn with(mut found: Collect, text: &str) -> Self {
        let mut tokens = tokens(text).into_iter().peekable();
        while let Some(token) = tokens.next() {
            match token {
                Token::Number(text) => found.number(text),
                Token::Exact(text) => found.exact(b'=', text),
                Token::Quoted(text) => found.exact(b'"', text),
                Token::Word { text: "I", begins: false } if found.ranks || tokens.peek().is_none() => {
                    found.number("I");
                }
                Token::Word { text, begins } => found.word(text, begins),
            }
        }
        found.marks()
    }

    /// Whether the answer to the one prompt may be one to the other, as far as these rules can see.
    #[must_use]
    pub fn allow(&self, other: &Self) -> bool {
        self.exact == other.exact
            && !exclude(&self.groups, &other.groups)
            && !self.opposes(other)
            && !other.opposes(self)
    }

    /// Whether a word here is the opposite of one there.
    fn opposes(&self, other: &Self) -> bool {
        self.opposites.iter().any(|(word, opposite)| {
            let has = |word: &u32| other.words.binary_search(word).is_ok();
            has(opposite) && !has(word)
        })
    }

    /// About how many bytes it takes.
    pub(super) fn bytes(&self) -> usize {
        let groups: usize = self.groups.iter().map(|(_, members)| members.len() + 24).sum();
        size_of::<Self>() + groups + 4 * self.words.len() + 8 * self.opposites.len()
    }
}

/// Whether of some group both have members, and not the same ones in the same order.
fn exclude(one: &[(u8, Box<[u8]>)], other: &[(u8, Box<[u8]>)]) -> bool {
    one.iter().any(|(group, members)| other.iter().any(|(also, others)| also == group && others != members))
}

// === impl Collect ===

impl Collect {
    fn exact(&mut self, kind: u8, text: &str) {
        self.exact.update(&[kind]);
        self.exact.update(&(text.len() as u64).to_le_bytes());
        self.exact.update(text.as_bytes());
        (self.counts, self.asks, self.ranks) = (false, false, false);
    }

    fn number(&mut self, text: &str) {
        self.exact(b'#', text);
        self.counts = true;
    }

    fn word(&mut self, written: &str, begins: bool) {
        let word = written.to_lowercase().replace('’', "'");
        if is_name(written, &word, begins) {
            let name = written.replace('’', "'");
            self.exact(b'N', name.strip_suffix("'s").unwrap_or(&name));
            self.ranks = true;
            return;
        }
        if words::denies(&word) {
            return self.exact(b'!', "");
        }
        if let Some(number) = words::number(&word) {
            return self.number(number);
        }
        if std::mem::take(&mut self.counts) && !words::is_function(&word) {
            self.exact(b'u', &words::stem(&word));
        }
        if std::mem::take(&mut self.asks)
            && let Some(quantity) = words::quantity(&word)
        {
            self.members(&words::root(quantity));
        }
        (self.asks, self.ranks) = (word == "how", words::is_ranked(&word));
        let root = words::root(&word);
        self.members(&root);
        if let Some(opposite) = words::opposite(&word) {
            self.opposites.push((hash(&root), hash(&words::root(opposite))));
        }
        self.words.push(hash(&root));
    }

    fn members(&mut self, root: &str) {
        for (group, member) in words::members(root) {
            match self.groups.iter_mut().find(|(known, _)| known == group) {
                Some((_, members)) if members.last() == Some(member) => {}
                Some((_, members)) => members.push(*member),
                None => self.groups.push((*group, vec![*member])),
            }
        }
    }

    fn marks(mut self) -> Marks {
        self.words.sort_unstable();
        self.words.dedup();
        Marks {
            exact: *self.exact.finalize().as_bytes().first_chunk().expect("the hash has 32 bytes"),
            groups: self.groups.into_iter().map(|(group, members)| (group, members.into())).collect(),
            words: self.words.into(),
            opposites: self.opposites.into(),
        }
    }
}

/// Whether a word with a capital letter is a name: all are but `I`, and those that often begin a sentence, there.
fn is_name(written: &str, lower: &str, begins: bool) -> bool {
    if !written.chars().any(char::is_uppercase) {
        return false;
    }
    let is_i = matches!(lower, "i" | "i'm" | "i've" | "i'd" | "i'll");
    let shouts = written.chars().count() > 1 && !written.chars().any(char::is_lowercase);
    !is_i && (shouts || !begins || (words::may_name(lower) && words::number(lower).is_none()))
}

/// FNV-1a, 32 bits (Fowler, Noll and Vo).
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::semantic::signs::is_spelling;

    fn allow(one: &str, other: &str) -> bool {
        let (one, other) = (Marks::of(one), Marks::of(other));
        assert_eq!(one.allow(&other), other.allow(&one), "it goes both ways");
        one.allow(&other)
    }

    #[test]
    fn other_words_for_the_same_are_allowed() {
        for (one, other) in [
            ("How do I reset my password?", "how can i reset the password"),
            ("What is the fee for a transfer?", "Tell me which fees a transfer has"),
            ("Is the refund still pending?", "Why is my refund pending"),
            ("I paid $5 in Berlin", "in the past i paid $5 in Berlin"),
        ] {
            assert!(allow(one, other), "{one} | {other}");
        }
        assert!(allow("My card hasn't arrived", "The card is not here yet"));
    }

    #[test]
    fn another_number_is_refused() {
        for (one, other) in [
            ("refund 50 to me", "refund 500 to me"),
            ("wait 5 days", "wait 5 weeks"),
            ("two cards", "three cards"),
            ("a card", "2 cards"),
            ("pay 5 from 3", "pay 3 from 5"),
            ("it is -5 outside", "it is 5 outside"),
            ("a fee of 5%", "a fee of $5"),
            ("version 1.2", "version 1.3"),
            ("the first try", "the second try"),
            ("at 10:30", "at 10.30"),
        ] {
            assert!(!allow(one, other), "{one} | {other}");
        }
        assert!(allow("I have two cards", "i have 2 cards"));
    }

    #[test]
    fn another_name_identifier_or_quote_is_refused() {
        for (one, other) in [
            ("how is the weather in Paris", "how is the weather in London"),
            ("Paris is nice?", "London is nice?"),
            ("from Paris to London", "from London to Paris"),
            ("call get_user()", "call get_users()"),
            ("what is fooBar", "what is foobar"),
            ("write to a@x.org", "write to b@x.org"),
            ("what does 'err' mean", "what does 'or' mean"),
            ("translate \"yes\"", "translate \"no\""),
            ("is the US big", "is the EU big"),
            ("天気は", "天気が"),
            ("sort a list in python", "sort a list in java"),
            ("learn C++", "learn C#"),
        ] {
            assert!(!allow(one, other), "{one} | {other}");
        }
    }

    #[test]
    fn a_negation_more_or_less_is_refused_and_so_is_one_elsewhere() {
        for (one, other) in [
            ("it works", "it doesn't work"),
            ("it works", "it doesn’t work"),
            ("with sugar", "without sugar"),
            ("i got my card", "i never got my card"),
            ("Anna but not Bert", "not Anna but Bert"),
            ("it is possible", "it is impossible"),
            ("i understand", "i misunderstand"),
            ("my card is usable", "my card is unusable"),
        ] {
            assert!(!allow(one, other), "{one} | {other}");
        }
    }

    #[test]
    fn a_swap_for_the_opposite_is_refused() {
        for (one, other) in [
            ("turn it on", "turn it off"),
            ("how do i open an account", "how do i close an account"),
            ("activate my card", "deactivating my card"),
            ("does it increase", "does it decrease"),
            ("how many are there", "how long are they there"),
            ("when does it come", "where does it come"),
            ("before and after", "after and before"),
            ("what is the capital of france", "what is the capital of spain"),
        ] {
            assert!(!allow(one, other), "{one} | {other}");
        }
        assert!(allow("turn it on", "turn it"));
    }

    #[test]
    fn another_sign_is_refused() {
        for (one, other) in [
            ("what does [] mean in python", "what does {} mean in python"),
            ("what does [] mean in python", "what does () mean in python"),
            ("what does {} mean in python", "what does () mean in python"),
            ("when does if (!ready) return run", "when does if (ready) return run"),
            ("what is 5!", "what is 5"),
            ("what is n!", "what is n"),
            ("is 1 in [0,1)", "is 1 in (0,1]"),
            ("type of (5,) in python", "type of (5) in python"),
            ("what does x, = y do", "what does x = y do"),
            ("what does ; do in c", "what does : do in c"),
            ("what does ?. do", "what does ?? do"),
            ("what does a?.b do", "what does a??b do"),
            ("is it . or , in spain", "is it , or . in spain"),
            ("what is 3 - 5", "what is 3 5"),
            ("what is x-y", "what is x y"),
            ("what is a - b c", "what is a b - c"),
            ("what is (a b) c", "what is (a) b c"),
            ("what is f'", "what is f"),
            ("is it ok :)", "is it ok :("),
            ("what is .hover", "what is :hover"),
            ("what is ...args", "what is args"),
            ("what does foo() do", "what does foo[] do"),
            ("what does save! do in rails", "what does save do in rails"),
            ("what does empty? do in ruby", "what does empty do in ruby"),
        ] {
            assert!(!allow(one, other), "{one} | {other}");
        }
    }

    #[test]
    fn another_case_of_a_unit_or_a_name_is_refused() {
        for (one, other) in [
            ("is 10 MB per second fast", "is 10 Mb per second fast"),
            ("is 10Mbps fast", "is 10MBps fast"),
            ("how much is 5mW", "how much is 5MW"),
            ("how much is 5 mW", "how much is 5 MW"),
            ("how much is 5M", "how much is 5m"),
            ("what is CO", "what is Co"),
        ] {
            assert!(!allow(one, other), "{one} | {other}");
        }
    }

    #[test]
    fn another_break_of_lines_is_refused() {
        for (one, other) in [
            ("run this\nif a:\n    b\n    c", "run this\nif a:\n    b\nc"),
            ("run this\nif a:\n    b\nc", "run this\nif a:\nb\n    c"),
            ("run a\nb c", "run a b\nc"),
            ("a\nb", "a b"),
            ("    a\nb", "a\nb"),
        ] {
            assert!(!allow(one, other), "{one} | {other}");
        }
        assert!(allow(" how do i pay\n", "how  do i pay"));
    }

    #[test]
    fn numbers_in_words_and_the_roman_one_are_numbers() {
        for (one, other) in [
            ("who was the eleventh king", "who was the twelfth king"),
            ("what came in the nineteenth century", "what came in the twentieth century"),
            ("are there millions of them", "are there billions of them"),
            ("are there hundreds of them", "are there thousands of them"),
            ("people in their twenties", "people in their thirties"),
            ("quadruple it", "quintuple it"),
            ("when did World War I start", "when did World War start"),
            ("what is a type I error", "what is a type error"),
            ("what is world war I", "what is world war"),
        ] {
            assert!(!allow(one, other), "{one} | {other}");
        }
    }

    #[test]
    fn the_signs_of_prose_are_nothing() {
        for (one, other) in [
            ("how do i block my card?", "How do I block my card"),
            ("What's the fee?", "what’s the fee"),
            ("Hello, how do I top-up my account.", "hello how do i top up my account"),
            ("i lost my card. How do i block it", "I lost my card? How do I block it?"),
            ("I lost my card, how can I block it?", "i lost the card, how do i block it"),
            ("I lost my card, how do I block it?", "I lost my card how do I block it"),
            ("i paid, but it failed", "I paid but it failed"),
            ("Help me, please!", "help me please!"),
            ("how do I pay,", "how do I pay"),
            ("can I pay in Berlin", "Can i pay in Berlin?"),
        ] {
            assert!(allow(one, other), "{one} | {other}");
        }
    }

    #[test]
    fn a_comma_a_hyphen_or_an_exclamation_more_or_elsewhere_is_refused() {
        for (one, other) in [
            ("no, delete it", "no delete it"),
            ("let's eat, grandma", "let's eat grandma"),
            ("customers, who paid late, get a fee", "customers who paid late get a fee"),
            ("is it for rent, cars or boats", "is it for rent cars, or boats"),
            ("no, is it open", "no is it open"),
            ("don't, do it", "don't do it"),
            ("Don’t, do it", "Don’t do it"),
            ("stop, it hurts", "stop it, hurts"),
            ("what is a man-eating fish", "what is a man eating fish"),
            ("how do i re-sign it", "how do i re sign it"),
            ("are there small-business owners", "are there small business-owners"),
            ("what is the difference to save!", "what is the difference to save"),
            ("Stop! I paid", "Stop. I paid"),
            ("do it!", "do it!!"),
            ("Really? Delete it", "Really! Delete it"),
            ("write \"a,\" please", "write \"a\" please"),
        ] {
            assert!(!allow(one, other), "{one} | {other}");
        }
    }

    /// The bound is only that of a test that must end.
    #[test]
    fn a_million_signs_are_read_in_one_go() {
        for many in ["« ", "!", "\n", "a.", "- "] {
            let marks = Marks::of(&many.repeat(500_000));
            assert!(marks.allow(&marks));
        }
    }

    const FRAMES: &[&str] = &[
        "how do i pay {} from my account",
        "Please tell me about {}",
        "what happens with {}?",
        "{}, is that right?",
        "I want to know whether (my friend) {} came",
    ];

    fn numbers() -> impl Strategy<Value = String> {
        prop_oneof![
            (0_u32..1_000_000).prop_map(|n| n.to_string()),
            (0_u32..10_000).prop_map(|n| format!("${}.{:02}", n / 100, n % 100)),
            (0_u32..100).prop_map(|n| format!("{n}%")),
            (-50_i32..50).prop_map(|n| n.to_string()),
            proptest::sample::select(vec!["two", "three", "seven", "hundred", "twice", "third"])
                .prop_map(str::to_owned),
        ]
    }

    fn names() -> impl Strategy<Value = String> {
        prop_oneof![
            "[A-Z][a-z]{2,9}",
            "[A-Z]{2,5}",
            "[a-z]{2,6}_[a-z]{2,6}",
            "[a-z]{2,6}/[a-z]{2,6}",
            "[\u{4e00}-\u{4eff}]{1,4}"
        ]
    }

    proptest! {
        #[test]
        fn another_number_never_passes(frame in proptest::sample::select(FRAMES), one in numbers(), other in numbers()) {
            let put = |n: &str| frame.replace("{}", n);
            let same = |n: &str| words::number(n).map_or_else(|| n.to_owned(), str::to_owned);
            prop_assume!(same(&one) != same(&other));
            prop_assert!(!allow(&put(&one), &put(&other)));
            prop_assert!(!allow(&put(&one), &put("it")));
        }

        #[test]
        fn another_name_never_passes(frame in proptest::sample::select(FRAMES), one in names(), other in names()) {
            // A sentence may begin with a common word.
            let common = |name: &String| !words::may_name(&name.to_lowercase()) || words::number(&name.to_lowercase()).is_some();
            prop_assume!(one.to_lowercase() != other.to_lowercase() && !common(&one) && !common(&other));
            let put = |n: &str| frame.replace("{}", n);
            prop_assert!(!allow(&put(&one), &put(&other)));
            prop_assert!(!allow(&put(&one), &put("it")));
        }

        #[test]
        fn another_quote_never_passes(frame in proptest::sample::select(FRAMES), one in "[a-z ]{1,12}", other in "[a-z ]{1,12}") {
            prop_assume!(one != other);
            let put = |n: &str| frame.replace("{}", &format!("\"{n}\""));
            prop_assert!(!allow(&put(&one), &put(&other)));
        }

        #[test]
        fn a_negation_more_never_passes(
            frame in proptest::sample::select(FRAMES),
            denied in proptest::sample::select(vec!["not", "never", "no", "don't", "cannot", "isn’t", "without"]),
        ) {
            let (plain, denied) = (frame.replace("{}", "it"), frame.replace("{}", &format!("{denied} it")));
            prop_assert!(!allow(&plain, &denied));
        }

        #[test]
        fn a_comma_or_a_hyphen_between_two_words_never_passes(
            words in proptest::collection::vec("[a-z]{2,8}", 2..8), at in 0_usize..8, to in 0_usize..8,
        ) {
            let (at, to) = (at % (words.len() - 1), to % (words.len() - 1));
            prop_assume!(!words.iter().any(|word| is_spelling(word)));
            let put = |sign: &str, at: usize| [words[..=at].join(" "), words[at + 1..].join(" ")].join(sign);
            let plain = words.join(" ");
            for sign in [", ", "-"] {
                prop_assert!(!allow(&plain, &put(sign, at)), "{}", put(sign, at));
                let same = words[at] == words[to] && words[at + 1] == words[to + 1];
                prop_assert!(at == to || same || !allow(&put(sign, to), &put(sign, at)), "{} {}", put(sign, to), put(sign, at));
            }
            prop_assert!(!allow(&put(", ", at), &put("-", at)));
            let shouted = format!("{plain}!");
            prop_assert!(!allow(&plain, &shouted) && allow(&shouted, &shouted));
        }

        #[test]
        fn every_prompt_is_read_and_allows_itself(prompt: String) {
            let marks = Marks::of(&prompt);
            prop_assert!(marks.allow(&marks));
        }
    }
}

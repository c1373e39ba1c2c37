//! What is known of English words: which carry little meaning, which deny, which are numbers, and which exclude each other.
//!
//! The lists are closed and small. What is not in them is compared by the embedder alone, as every word of another
//! language is.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Words that carry little meaning of their own. At the beginning of a sentence they are no names.
const FUNCTION: &str = "a an the this that these those i me my mine we us our ours you your yours he him his she her hers it \
    its they them their theirs who whom whose which what when where why how is am are was were be been being do does did \
    doing done have has had having can could will would shall should may might must need ought of in on at by for with \
    about against between into through during to from up down out off over under again then once here there all any both \
    each few more most other some such only own same so than too very just also and but if or because as until while \
    please hi hello hey dear thanks thank ok okay yes let's lets";

/// Words that often begin a question or a request, and are no names there.
const OPENERS: &str = "add after although always apply are ask before best calculate change check choose code come compare \
    compose compute confirm consider convert correct count create define delete describe design determine develop did \
    difference discuss draft draw each edit every everyone evaluate example examples explain extract fill find first fix \
    following generate get give given go good great guide had having help helping how's however i'd i'll i'm i've \
    identify imagine implement improve is it's keep know last list look looking make many maybe money more most my name \
    need nice no not now offer on one open order outline output paraphrase people perform plan play plot \
    prepare produce proofread prove provide question read recommend remove rephrase replace reply report respond return \
    review rewrite said say says search see select send set she's show simplify since solve some someone something \
    sometimes sort speak start state steps still stop suggest sum summarise summarize suppose take tell test text that's \
    there's they're think today transfer translate try turn two type use using wait want wanted we're were what's when's \
    where's whether who's whole why's with without won't work would write yesterday you're";

const NEGATIONS: &str = "not no never none nothing nobody nowhere neither nor cannot without unless hardly barely rarely \
    seldom non unable dont doesnt didnt isnt arent wasnt werent cant couldnt wont wouldnt shouldnt hasnt havent hadnt aint \
    mustnt neednt";

const NUMBERS: &[(&str, &str)] = &[
    ("zero", "0"),
    ("one", "1"),
    ("two", "2"),
    ("three", "3"),
    ("four", "4"),
    ("five", "5"),
    ("six", "6"),
    ("seven", "7"),
    ("eight", "8"),
    ("nine", "9"),
    ("ten", "10"),
    ("eleven", "11"),
    ("twelve", "12"),
    ("thirteen", "13"),
    ("fourteen", "14"),
    ("fifteen", "15"),
    ("sixteen", "16"),
    ("seventeen", "17"),
    ("eighteen", "18"),
    ("nineteen", "19"),
    ("twenty", "20"),
    ("thirty", "30"),
    ("forty", "40"),
    ("fifty", "50"),
    ("sixty", "60"),
    ("seventy", "70"),
    ("eighty", "80"),
    ("ninety", "90"),
    ("hundred", "100"),
    ("thousand", "1000"),
    ("million", "1000000"),
    ("billion", "1000000000"),
    ("trillion", "1000000000000"),
    ("dozen", "12"),
    ("half", "1/2"),
    ("quarter", "1/4"),
    ("once", "1x"),
    ("twice", "2x"),
    ("thrice", "3x"),
    ("double", "2x"),
    ("triple", "3x"),
    ("single", "1x"),
    ("second", "2nd"),
    ("third", "3rd"),
    ("fourth", "4th"),
    ("fifth", "5th"),
    ("sixth", "6th"),
    ("seventh", "7th"),
    ("eighth", "8th"),
    ("ninth", "9th"),
    ("tenth", "10th"),
    ("eleventh", "11th"),
    ("twelfth", "12th"),
    ("thirteenth", "13th"),
    ("fourteenth", "14th"),
    ("fifteenth", "15th"),
    ("sixteenth", "16th"),
    ("seventeenth", "17th"),
    ("eighteenth", "18th"),
    ("nineteenth", "19th"),
    ("twentieth", "20th"),
    ("thirtieth", "30th"),
    ("fortieth", "40th"),
    ("fiftieth", "50th"),
    ("sixtieth", "60th"),
    ("seventieth", "70th"),
    ("eightieth", "80th"),
    ("ninetieth", "90th"),
    ("hundredth", "100th"),
    ("thousandth", "1000th"),
    ("millionth", "1000000th"),
    ("billionth", "1000000000th"),
    ("tens", "10s"),
    ("twenties", "20s"),
    ("thirties", "30s"),
    ("forties", "40s"),
    ("fifties", "50s"),
    ("sixties", "60s"),
    ("seventies", "70s"),
    ("eighties", "80s"),
    ("nineties", "90s"),
    ("dozens", "12s"),
    ("hundreds", "100s"),
    ("thousands", "1000s"),
    ("millions", "1000000s"),
    ("billions", "1000000000s"),
    ("trillions", "1000000000000s"),
    ("halves", "1/2s"),
    ("thirds", "1/3s"),
    ("quarters", "1/4s"),
    ("quadruple", "4x"),
    ("quintuple", "5x"),
    ("sextuple", "6x"),
];

/// Groups of words that say different things of the same thing. Members are separated by `|`, forms of one member by
/// spaces.
const EXCLUSIVE: &[&str] = &[
    "on | off",
    "up | down",
    "in inside | out outside",
    "before | after",
    "above over | below under beneath",
    "more | less fewer",
    "most | least fewest",
    "maximum max highest biggest largest | minimum min lowest smallest",
    "increase grow raise rise raised rose grew | decrease shrink reduce lower fall fell drop",
    "open opened | close shut",
    "start begin began begun | stop end finish",
    "enable activate | disable deactivate",
    "allow permit | forbid prohibit deny block ban | unblock",
    "accept | reject refuse decline",
    "add | remove delete subtract",
    "include | exclude",
    "buy bought purchase | sell sold",
    "send sent | receive receiv get got",
    "deposit top | withdraw withdrew withdrawal",
    "credit | debit",
    "borrow | lend lent",
    "import | export",
    "upload | download",
    "lock | unlock",
    "encrypt | decrypt",
    "encode | decode",
    "compress | decompress",
    "push | pull",
    "connect | disconnect",
    "login | logout",
    "install | uninstall",
    "upgrade | downgrade",
    "subscribe | unsubscribe",
    "follow | unfollow",
    "like love | dislike hate",
    "true | false",
    "right | wrong | left",
    "correct | incorrect",
    "valid | invalid",
    "legal | illegal",
    "possible | impossible",
    "safe | dangerous unsafe",
    "good best better | bad worst worse",
    "new | old",
    "young | old",
    "big large | small little tiny",
    "long longer | short shorter",
    "tall | short",
    "high higher | low lower",
    "hot | cold",
    "fast quick | slow",
    "early earlier | late later",
    "first | last",
    "next | previous",
    "ascend ascending | descend descending",
    "encourage | discourage",
    "strong | weak",
    "rich | poor",
    "full | empty",
    "heavy | light",
    "dark | light",
    "easy | hard difficult",
    "cheap | expensive",
    "public | private",
    "internal | external",
    "local | remote global",
    "input | output",
    "request | response",
    "client | server",
    "read | write",
    "get | set | put | post | patch | delete",
    "import | export",
    "win won | lose lost",
    "lost | found",
    "arrive | depart leave left",
    "come came | go went gone",
    "push | pull",
    "always | never | sometimes",
    "male man men boy he him his | female woman women girl she her",
    "mother mom mum | father dad",
    "sister | brother",
    "son | daughter",
    "wife | husband",
    "aunt | uncle",
    "monday | tuesday | wednesday | thursday | friday | saturday | sunday",
    "weekday | weekend",
    "january | february | march | april | june | july | august | september | october | november | december",
    "today tonight | tomorrow | yesterday | now",
    "morning | afternoon | evening | night | noon | midnight",
    "day daily | week weekly | month monthly | year yearly annual annually | hour hourly | minute | decade | century",
    "spring | summer | autumn | winter",
    "north | south | east | west",
    "red | green | blue | yellow | black | white | orange | purple | pink | brown | grey gray",
    "dollar usd | euro eur | pound gbp | yen jpy | franc chf | yuan | rupee",
    "kilometre kilometer km | mile | metre meter | foot feet ft | inch | centimetre centimeter cm | millimetre millimeter mm",
    "kilogram kilo kg | gram | pound lb | ounce oz | ton tonne",
    "celsius | fahrenheit | kelvin",
    "litre liter | gallon | pint",
    "python | java | javascript js | typescript | rust | golang | ruby | php | kotlin | swift | scala | perl | haskell | c | bash",
    "mysql | postgres postgresql | sqlite | mongodb | oracle | redis",
    "windows | linux | mac macos | android | ios iphone",
    "english | french | german | spanish | italian | portuguese | dutch | polish | russian | chinese | japanese | korean | arabic | hindi | turkish | swedish",
    "france | germany | spain | italy | portugal | netherlands holland | poland | russia | china | japan | korea | india | turkey | sweden | norway | denmark | finland | uk britain england | usa america | canada | mexico | brazil | australia | egypt | greece | austria | switzerland | ireland | belgium | ukraine",
    "virtual | physical",
    "prepaid | postpaid",
    "mastercard | visa | amex",
    "card | cash | cheque check",
    "android | ios",
    "atm | branch",
    "password passcode | pin | username",
    "email mail | phone telephone | address",
    "why | when | where | who | how-many | how-much | how-long | how-often | how-old | how-far | how-fast",
    "positive | negative",
    "plus add | minus subtract",
    "multiply times | divide",
    "even | odd",
    "even | uneven",
    "front | back",
    "top | bottom",
    "horizontal | vertical",
    "row | column",
    "singular | plural",
    "past | present | future",
    "active | passive",
    "synonym | antonym",
    "pro advantage benefit | con disadvantage drawback",
    "cause reason | effect consequence",
    "domestic | international",
    "refund | charge",
    "incoming | outgoing",
    "personal | business",
    "single | married | divorced",
    "breakfast | lunch | dinner",
    "dog | cat",
    "wet | dry",
    "raw | cooked",
    "alive | dead",
    "hire | fire",
    "pass passed | fail",
    "appear | disappear",
];

/// What a word means when it stands in front of another one.
const OPPOSITES: &[&str] = &["un", "dis", "in", "im", "ir", "il", "non", "de", "mis", "anti"];

/// Asks after a quantity behind `how`.
const QUANTITIES: &[(&str, &str)] = &[
    ("many", "how-many"),
    ("much", "how-much"),
    ("long", "how-long"),
    ("often", "how-often"),
    ("old", "how-old"),
    ("far", "how-far"),
    ("fast", "how-fast"),
];

/// Words that a Roman number often stands behind.
const RANKED: &str = "act article book chapter class division factor figure grade group level part phase schedule section \
    stage step table title type vitamin volume war";

/// Words that look like a form of another one and are something else.
const NO_FORMS: &str = "aids arms besides clothes crooked customs dogged glasses goods jagged jeans leaves lens lives means \
    news odds pandas pants ragged rails rugged shorts sometimes wicked windows";

/// What a word has before `-ed`, when no `e` can have been there: `planed` is from `plane`.
const BEFORE_ED: &[&str] = &[
    "ck", "nk", "rk", "lk", "sk", "sh", "ch", "nd", "rd", "ld", "nt", "ft", "pt", "ct", "lt", "rt", "xt",
    "mp", "lp", "rm", "rn", "wn", "ll", "ss", "ff", "zz", "ay", "ey", "oy", "ow", "aw", "ew", "x",
];

/// A member of a group: the group's number and its own.
pub(super) type Member = (u8, u8);

static LITTLE: LazyLock<HashMap<&str, ()>> = LazyLock::new(|| set(FUNCTION));
static FIRST: LazyLock<HashMap<&str, ()>> = LazyLock::new(|| set(OPENERS));
static DENIES: LazyLock<HashMap<&str, ()>> = LazyLock::new(|| set(NEGATIONS));
static RANKS: LazyLock<HashMap<&str, ()>> = LazyLock::new(|| set(RANKED));
static NO_FORM: LazyLock<HashMap<&str, ()>> = LazyLock::new(|| set(NO_FORMS));
static COUNTS: LazyLock<HashMap<&str, &str>> = LazyLock::new(|| NUMBERS.iter().copied().collect());
static GROUPS: LazyLock<HashMap<String, Vec<Member>>> = LazyLock::new(groups);

fn set(words: &'static str) -> HashMap<&'static str, ()> {
    words.split_whitespace().map(|word| (word, ())).collect()
}

fn groups() -> HashMap<String, Vec<Member>> {
    let mut groups: HashMap<String, Vec<Member>> = HashMap::new();
    for (group, members) in (0_u8..).zip(EXCLUSIVE) {
        for (member, forms) in (0_u8..).zip(members.split('|')) {
            for form in forms.split_whitespace() {
                groups.entry(root(form)).or_default().push((group, member));
            }
        }
    }
    groups
}

/// Whether a lower-case word carries little meaning.
pub(super) fn is_function(word: &str) -> bool {
    LITTLE.contains_key(word)
}

/// Whether a lower-case word at the beginning of a sentence is none of the words that are no names there.
pub(super) fn may_name(word: &str) -> bool {
    !LITTLE.contains_key(word) && !FIRST.contains_key(word) && !DENIES.contains_key(word)
}

/// Whether a lower-case word denies.
pub(super) fn denies(word: &str) -> bool {
    DENIES.contains_key(word) || word.ends_with("n't")
}

/// The number that a lower-case word is.
pub(super) fn number(word: &str) -> Option<&'static str> {
    COUNTS.get(word).copied()
}

/// Whether an `I` behind a lower-case word is a number.
pub(super) fn is_ranked(word: &str) -> bool {
    RANKS.contains_key(word)
}

/// The groups that exclude their members, with this root as one of them.
pub(super) fn members(root: &str) -> &'static [Member] {
    GROUPS.get(root).map_or(&[], Vec::as_slice)
}

/// What `how` asks after with this word behind it.
pub(super) fn quantity(word: &str) -> Option<&'static str> {
    QUANTITIES.iter().find_map(|(behind, asks)| (*behind == word).then_some(*asks))
}

/// The word that this one may be the opposite of.
pub(super) fn opposite(word: &str) -> Option<&str> {
    let rest = OPPOSITES.iter().find_map(|prefix| word.strip_prefix(prefix))?;
    (rest.chars().count() >= 4).then_some(rest)
}

/// A lower-case English word without an ending that is certainly one, so that other words stay others. `-ing` stays:
/// a setting is no set, and caring is not about cars.
pub(super) fn stem(word: &str) -> String {
    let word = word.strip_suffix("'s").unwrap_or(word);
    if word.len() <= 3 || !word.is_ascii() || NO_FORM.contains_key(word) {
        return word.to_owned();
    }
    if let Some(rest) = word.strip_suffix("ies").filter(|rest| rest.len() > 1) {
        return format!("{rest}y");
    }
    if ["sses", "xes", "ches", "shes"].iter().any(|end| word.ends_with(end)) {
        return word[..word.len() - 2].to_owned();
    }
    // Politics is not what is politic.
    let is_one = |rest: &&str| !rest.ends_with(['s', 'u', 'i']) && !rest.ends_with("ic");
    if let Some(rest) = word.strip_suffix('s').filter(is_one) {
        return rest.to_owned();
    }
    let past = word.strip_suffix("ed").filter(|rest| rest.len() >= 3 && rest.contains(is_vowel));
    past.and_then(present).unwrap_or(word).to_owned()
}

/// The verb of which `rest` is what stands before `-ed`, if that is certain.
fn present(rest: &str) -> Option<&str> {
    let mut ends = rest.chars().rev();
    let (last, before) = (ends.next()?, ends.next()?);
    if rest.len() == 3 && last == before || BEFORE_ED.iter().any(|end| rest.ends_with(end)) {
        return Some(rest);
    }
    (last == before && !is_vowel(last)).then(|| &rest[..rest.len() - 1])
}

/// What forms of an English word may have in common: too much rather than too little, to find what it excludes. It need
/// not be a word.
pub(super) fn root(word: &str) -> String {
    let word = word.strip_suffix("'s").unwrap_or(word);
    if word.len() <= 3 || !word.is_ascii() {
        return word.to_owned();
    }
    let bare = ["ing", "ied", "ies", "ed", "es", "s", "e", "y"]
        .iter()
        .find_map(|end| word.strip_suffix(end).filter(|rest| rest.len() >= 3 && rest.contains(is_vowel)))
        .unwrap_or(word);
    if word.ends_with("ss") {
        return word.trim_end_matches('s').to_owned();
    }
    let mut ends = bare.chars().rev();
    match (ends.next(), ends.next()) {
        (Some(last), Some(before)) if last == before && bare.len() > 3 => bare[..bare.len() - 1].to_owned(),
        _ => bare.to_owned(),
    }
}

fn is_vowel(c: char) -> bool {
    matches!(c, 'a' | 'e' | 'i' | 'o' | 'u' | 'y')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(forms: &[&str], of: fn(&str) -> String) -> usize {
        forms.iter().map(|form| of(form)).collect::<std::collections::BTreeSet<_>>().len()
    }

    #[test]
    fn forms_of_a_word_have_one_root() {
        for forms in [
            &["increase", "increases", "increased", "increasing"][..],
            &["stop", "stops", "stopped", "stopping"],
            &["close", "closed", "closing", "closes"],
            &["carry", "carries", "carried"],
            &["card", "cards"],
            &["add", "adds", "added", "adding"],
            &["access"],
        ] {
            assert_eq!(count(forms, root), 1, "{forms:?}");
        }
        assert_ne!(root("card"), root("care"));
        assert_eq!(root("naïve"), "naïve");
    }

    #[test]
    fn a_certain_ending_is_no_part_of_the_stem() {
        for forms in [
            &["increase", "increases"][..],
            &["stop", "stops", "stopped"],
            &["block", "blocks", "blocked", "block's"],
            &["carry", "carries"],
            &["match", "matches", "matched"],
            &["box", "boxes", "boxed"],
            &["class", "classes"],
            &["add", "adds", "added"],
            &["fill", "fills", "filled"],
            &["case", "cases"],
        ] {
            assert_eq!(count(forms, stem), 1, "{forms:?}");
        }
        for same in ["access", "status", "analysis", "naïve", "need", "hundred", "closed"] {
            assert_eq!(stem(same), same);
        }
    }

    #[test]
    fn other_words_have_other_stems() {
        for words in [
            &["police", "policy", "policies"][..],
            &["fill", "file", "filed"],
            &["story", "store", "stores", "stored"],
            &["plan", "plane", "planed"],
            &["car", "care", "card", "cared", "caring"],
            &["set", "setting"],
            &["hop", "hope", "hoping"],
            &["new", "news"],
            &["logistic", "logistics"],
            &["short", "shorts"],
            &["bath", "bathe", "bathed"],
            &["past", "paste", "pasted"],
            &["univers", "universe", "university"],
        ] {
            let stems = words.iter().map(|word| stem(word)).collect::<Vec<_>>();
            assert!(stems[1..].iter().all(|other| *other != stems[0]), "{words:?}: {stems:?}");
        }
        assert_ne!(stem("file"), stem("filled"));
        assert_ne!(stem("stories"), stem("stores"));
        assert_ne!(stem("planed"), stem("planned"));
    }

    #[test]
    fn groups_fit_their_numbers_and_are_found_by_any_form() {
        assert!(EXCLUSIVE.len() <= usize::from(u8::MAX));
        let group = |word: &str| members(&root(word)).iter().map(|(group, _)| *group).collect::<Vec<_>>();
        assert_eq!(group("increasing"), group("decreased"));
        assert!(
            members(&root("blocked"))
                .iter()
                .any(|(group, _)| members("unblock").iter().any(|(other, _)| other == group))
        );
        assert!(members("table").is_empty());
    }

    #[test]
    fn only_a_whole_word_can_have_an_opposite() {
        assert_eq!(opposite("unlocked"), Some("locked"));
        assert_eq!(opposite("under"), None);
        assert_eq!(opposite("card"), None);
    }
}

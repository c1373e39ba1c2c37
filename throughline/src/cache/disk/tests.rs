use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tempfile::TempDir;

use super::file::taken;
use super::pending::Waiting;
use super::*;
use crate::cache::disk::listing::DiskEntries;
use crate::cache::entries::Entries as _;
use crate::cache::key::KeyBuilder;
use crate::cache::tiered::Tiered;
use crate::{CacheConfig, Clock, Context, JsonCaching, Memory, workflow};

const HOUR: Lifetime = lasting(Duration::from_secs(3600), Duration::from_secs(3600));
const MIB: u64 = 1 << 20;

const fn lasting(fresh: Duration, kept: Duration) -> Lifetime {
    Lifetime { fresh, kept, computed_in: Duration::ZERO }
}

fn key(n: u64) -> Key {
    KeyBuilder::new("test", 0).part(&n.to_le_bytes()).build()
}

/// Bytes that no compression shrinks, the same for the same number.
fn noise(n: u64, length: usize) -> Bytes {
    let mut random = fastrand::Rng::with_seed(n);
    std::iter::repeat_with(|| random.u8(..)).take(length).collect()
}

fn folder() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("answers.cache");
    (folder, path)
}

async fn opened(path: &Path, max_bytes: u64) -> Disk {
    let disk = Disk::new(DiskConfig::new(path, max_bytes).unwrap());
    disk.written().await;
    disk
}

async fn put(disk: &Disk, n: u64, value: Bytes) {
    // A writer that is behind says so; here it is waited for.
    while disk.put(key(n), value.clone(), HOUR, Clock::Tokio.now()).await.is_err() {
        disk.written().await;
        assert!(disk.shared.works().is_ok(), "{disk:?}");
    }
}

async fn get(disk: &Disk, n: u64) -> Result<Lookup> {
    disk.get(&key(n), Clock::Tokio.now()).await
}

async fn value(disk: &Disk, n: u64) -> Option<Bytes> {
    match get(disk, n).await {
        Ok(Lookup::Found(found)) => Some(found.value),
        _ => None,
    }
}

/// Why nothing can be read.
async fn refusal(disk: &Disk) -> String {
    get(disk, 1).await.expect_err("it cannot be read").to_string()
}

#[tokio::test]
async fn values_survive_a_restart_and_are_there_before_they_are_written() {
    let (_folder, path) = folder();
    let disk = opened(&path, 16 * MIB).await;
    for n in 0..500 {
        put(&disk, n, noise(n, 100)).await;
        assert_eq!(value(&disk, n).await, Some(noise(n, 100)));
    }
    disk.delete(&key(7), Clock::Tokio.now()).await.unwrap();
    assert_eq!(value(&disk, 7).await, None);
    drop(disk);
    let disk = opened(&path, 16 * MIB).await;
    for n in 0..500 {
        assert_eq!(value(&disk, n).await, (n != 7).then(|| noise(n, 100)), "{n}");
    }
}

#[tokio::test]
async fn a_value_that_is_too_old_is_missing_and_says_its_age_before() {
    let (_folder, path) = folder();
    let disk = opened(&path, 16 * MIB).await;
    let short = lasting(Duration::ZERO, Duration::from_millis(1));
    disk.put(key(1), noise(1, 10), short, Clock::Tokio.now()).await.unwrap();
    disk.put(key(2), noise(2, 10), HOUR, Clock::Tokio.now()).await.unwrap();
    disk.written().await;
    while value(&disk, 1).await.is_some() {
        tokio::task::yield_now().await;
    }
    let Ok(Lookup::Found(found)) = get(&disk, 2).await else { panic!("it is fresh") };
    assert!(found.age >= Duration::from_millis(1) && found.lifetime == HOUR, "{found:?}");
}

#[tokio::test]
async fn the_file_stays_within_its_bound_whatever_the_sizes_and_most_of_it_is_used() {
    for (round, longest) in [1_000, 3_000, 40_000, 200_000].into_iter().enumerate() {
        let (_folder, path) = folder();
        let max = 4 * MIB;
        let disk = opened(&path, max).await;
        let mut random = fastrand::Rng::with_seed(round as u64);
        let (mut put_bytes, mut n) = (0, 0);
        while put_bytes < 3 * max {
            let value = noise(n, random.usize(..longest));
            put_bytes += value.len() as u64 + 100;
            put(&disk, n, value).await;
            n += 1;
            if n % 512 == 0 {
                disk.written().await;
                let taken = taken(&path).unwrap();
                assert!(taken <= max, "{taken} bytes with values of up to {longest}");
            }
        }
        disk.written().await;
        assert!(taken(&path).unwrap() <= max);
        let mut held = 0;
        for n in 0..n {
            held += value(&disk, n).await.map_or(0, |value| value.len() as u64 + 100);
        }
        assert!(held > max / 5, "{held} of {max} with values of up to {longest}");
        assert!(value(&disk, n - 1).await.is_some(), "the last one is there");
        assert!(value(&disk, 0).await.is_none(), "the first one has gone");
    }
}

#[tokio::test]
async fn a_file_that_was_larger_is_made_smaller_when_it_is_opened() {
    let (_folder, path) = folder();
    let disk = opened(&path, 32 * MIB).await;
    for n in 0..2_000 {
        put(&disk, n, noise(n, 8_000)).await;
    }
    drop(disk);
    assert!(taken(&path).unwrap() > 8 * MIB);
    let disk = opened(&path, 4 * MIB).await;
    let small = taken(&path).unwrap();
    assert!(small <= 4 * MIB, "{small}");
    assert!(value(&disk, 1_999).await.is_some());
}

#[tokio::test]
async fn what_is_asked_for_stays_longer_than_what_is_not() {
    let (_folder, path) = folder();
    let disk = opened(&path, 4 * MIB).await;
    for n in 0..3_000 {
        put(&disk, n, noise(n, 3_000)).await;
        assert!(value(&disk, 0).await.is_some(), "asked for all the time, gone after {n}");
    }
    assert!(value(&disk, 1).await.is_none());
}

#[tokio::test]
async fn a_value_that_would_take_a_large_part_of_the_file_is_not_stored() {
    let (_folder, path) = folder();
    let disk = opened(&path, 4 * MIB).await;
    let put = disk.put(key(1), noise(1, 300_000), HOUR, Clock::Tokio.now()).await;
    assert!(!put.unwrap());
}

#[tokio::test]
async fn a_file_that_another_process_has_is_taken_over_once_it_is_free() {
    let (_folder, path) = folder();
    let first = opened(&path, 16 * MIB).await;
    put(&first, 1, noise(1, 10)).await;
    first.written().await;
    let second = opened(&path, 16 * MIB).await;
    let said = refusal(&second).await;
    assert!(said.starts_with("another process has ") && said.ends_with("one process's at a time"), "{said}");
    assert!(second.put(key(2), Bytes::new(), HOUR, Clock::Tokio.now()).await.is_err());
    assert!(DiskEntries::open(DiskConfig::new(&path, 16 * MIB).unwrap()).is_err());
    drop(first);
    while value(&second, 1).await.is_none() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(second.health().unwrap().down(), None);
}

#[tokio::test]
async fn a_file_of_somebody_else_is_refused_and_left_as_it_is() {
    let (_folder, path) = folder();
    let letter = b"Dear Sir or Madam, ".repeat(1_000);
    fs::write(&path, &letter).unwrap();
    let said = refusal(&opened(&path, 16 * MIB).await).await;
    assert!(
        said.ends_with("is not a cache of this version and is left as it is: give another path"),
        "{said}"
    );
    assert_eq!(fs::read(&path).unwrap(), letter);

    fs::remove_file(&path).unwrap();
    let database = redb::Database::create(&path).unwrap();
    let write = database.begin_write().unwrap();
    let theirs: redb::TableDefinition<'_, u64, u64> = redb::TableDefinition::new("theirs");
    write.open_table(theirs).unwrap().insert(1, 2).unwrap();
    write.commit().unwrap();
    drop(database);
    let said = refusal(&opened(&path, 16 * MIB).await).await;
    assert!(said.contains("is left as it is"), "{said}");
}

#[tokio::test]
async fn a_path_that_cannot_be_used_is_said_to_be_so() {
    let (folder, path) = folder();
    let none = folder.path().join("none").join("answers.cache");
    assert!(refusal(&opened(&none, 16 * MIB).await).await.ends_with(": there is no such folder"));
    let directory = refusal(&opened(folder.path(), 16 * MIB).await).await;
    assert!(directory.ends_with(": it is a directory, not a file"), "{directory}");
    fs::write(&path, b"").unwrap();
    let below = refusal(&opened(&path.join("answers.cache"), 16 * MIB).await).await;
    assert!(below.ends_with(": a part of the path is no directory"), "{below}");
    assert!(DiskConfig::new(&path, 1).is_err());
}

/// Puts a value until it can be read back from the file.
async fn works_again(disk: &Disk, path: &Path) {
    for tried in 0.. {
        let put = disk.put(key(2), noise(2, 50), HOUR, Clock::Tokio.now()).await;
        disk.written().await;
        if put.is_ok() && path.exists() && value(disk, 2).await == Some(noise(2, 50)) {
            break;
        }
        assert!(tried < 1_000, "{disk:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn until_down(disk: &Disk, reason: &str) {
    for tried in 0.. {
        let down = disk.shared.health.down();
        if down.as_ref().is_some_and(|down| down.reason.ends_with(reason)) {
            break;
        }
        assert!(tried < 1_000, "{down:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn a_folder_that_is_removed_while_it_serves_is_said_and_used_again_once_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let within = folder.path().join("cache");
    let path = within.join("answers.cache");
    fs::create_dir(&within).unwrap();
    let disk = opened(&path, 16 * MIB).await;
    put(&disk, 1, noise(1, 50)).await;
    disk.written().await;
    fs::remove_dir_all(&within).unwrap();
    until_down(&disk, ": there is no such folder").await;
    assert!(refusal(&disk).await.ends_with(": there is no such folder"));
    fs::create_dir(&within).unwrap();
    works_again(&disk, &path).await;
    assert_eq!(disk.shared.health.down(), None);
    drop(disk);
    let disk = opened(&path, 16 * MIB).await;
    assert_eq!((value(&disk, 1).await, value(&disk, 2).await), (None, Some(noise(2, 50))));
}

#[tokio::test]
async fn a_file_that_is_removed_or_replaced_is_begun_anew_where_it_was() {
    let (folder, path) = folder();
    let (other, third) = (folder.path().join("other.cache"), folder.path().join("third.cache"));
    drop(opened(&other, 16 * MIB).await);
    let disk = opened(&path, 16 * MIB).await;
    put(&disk, 1, noise(1, 50)).await;
    disk.written().await;
    fs::remove_file(&path).unwrap();
    works_again(&disk, &path).await;
    assert_eq!(value(&disk, 1).await, None, "it was in the file that is gone");
    fs::rename(&path, &third).unwrap();
    fs::rename(&other, &path).unwrap();
    for tried in 0.. {
        if value(&disk, 2).await.is_none() && disk.shared.works().is_ok() {
            break;
        }
        assert!(tried < 1_000, "{disk:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    works_again(&disk, &path).await;
    drop(disk);
    assert_eq!(value(&opened(&path, 16 * MIB).await, 2).await, Some(noise(2, 50)));
}

/// Every value is the right one, not there, or known to be damaged; and after a while the store works.
#[tokio::test]
async fn whatever_happened_to_the_file_no_wrong_value_is_read_and_the_store_heals() {
    let (folder, path) = folder();
    let disk = opened(&path, 4 * MIB).await;
    for n in 0..300 {
        put(&disk, n, noise(n, 2_000)).await;
    }
    drop(disk);
    let good = fs::read(&path).unwrap();
    for seed in 0..24 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bad = good.clone();
        match seed % 3 {
            0 => bad.truncate(random.usize(..good.len())),
            1 => {
                let at = random.usize(..good.len() - 5_000);
                bad[at..at + 5_000].fill_with(|| random.u8(..));
            }
            _ => (0..200).for_each(|_| bad[random.usize(..good.len())] ^= 1 << random.u8(..8)),
        }
        let path = folder.path().join(format!("{seed}.cache"));
        fs::write(&path, &bad).unwrap();
        let disk = opened(&path, 4 * MIB).await;
        for n in 0..300 {
            if let Some(value) = value(&disk, n).await {
                assert_eq!(value, noise(n, 2_000), "seed {seed}");
            }
        }
        let foreign = get(&disk, 0).await.is_err_and(|error| error.to_string().contains("is left as it is"));
        for tried in 0.. {
            let put = disk.put(key(1_000), noise(1_000, 50), HOUR, Clock::Tokio.now()).await;
            disk.written().await;
            if foreign || put.is_ok() && value(&disk, 1_000).await == Some(noise(1_000, 50)) {
                break;
            }
            assert!(tried < 500, "seed {seed}: {disk:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn an_envelope_that_is_not_ours_is_deleted_counted_and_made_again() {
    let (_folder, path) = folder();
    let disk = Arc::new(opened(&path, 16 * MIB).await);
    let runs = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&runs);
    let shout = workflow("shout", move |text: String| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move { Ok(text.to_uppercase()) }
    });
    let config = CacheConfig::new("shout", Duration::from_secs(3600)).unwrap();
    let config = config.store_deadline(Duration::from_secs(30)).unwrap();
    let flow = shout.cache(
        config,
        JsonCaching::keyed(|text: &String, _, key| Some(key.text(text))),
        Arc::clone(&disk),
    );
    let (cx, question) = (Context::new(), "hello".to_owned());
    flow.run(question.clone(), &cx).await.unwrap();
    disk.written().await;
    let stored = disk.shared.file().unwrap().list(None, 9, usize::MAX).unwrap();
    let [(key, good, _)] = stored.as_slice() else { panic!("one value: {}", stored.len()) };
    let mut other_version = good.to_vec();
    other_version[2] += 1;
    let mut flipped = good.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let mut bad =
        vec![Vec::new(), b"HELLO".to_vec(), good[..good.len() - 1].to_vec(), other_version, flipped];
    let mut random = fastrand::Rng::with_seed(28);
    for _ in 0..40 {
        let mut changed = good.to_vec();
        match random.u8(..3) {
            0 => changed.truncate(random.usize(..good.len())),
            1 => changed.extend_from_slice(&noise(random.u64(..), 1 + usize::from(random.u8(..)))),
            _ => changed[random.usize(..good.len())] ^= 1 << random.u8(..8),
        }
        bad.push(changed);
    }
    for (n, bad) in bad.iter().enumerate() {
        disk.keeper().ask(*key, Waiting::Put(bad.clone().into())).unwrap();
        disk.written().await;
        assert_eq!(flow.run(question.clone(), &cx).await.unwrap(), "HELLO");
        disk.written().await;
        assert_eq!(flow.stage().stats().corrupt, n as u64 + 1);
        assert_eq!(
            disk.shared.file().unwrap().read(key).unwrap().map(|sealed| sealed.len()),
            Some(good.len())
        );
    }
    flow.run(question, &cx).await.unwrap();
    let stats = flow.stage().stats();
    assert_eq!((stats.hits, runs.load(Ordering::SeqCst)), (1, bad.len() as u64 + 1));
}

#[tokio::test]
async fn memory_in_front_of_it_serves_what_a_restart_has_left() {
    let (_folder, path) = folder();
    let deadline = Duration::from_secs(30);
    let tiered = |disk| Tiered::new(Memory::new(1 << 20).unwrap(), disk, deadline).unwrap();
    let before = tiered(opened(&path, 16 * MIB).await);
    before.put(key(1), noise(1, 100), HOUR, Clock::Tokio.now()).await.unwrap();
    drop(before);
    let after = tiered(opened(&path, 16 * MIB).await);
    for _ in 0..2 {
        let found = after.get(&key(1), Clock::Tokio.now()).await;
        assert!(matches!(found, Ok(Lookup::Found(found)) if found.value == noise(1, 100)));
    }
}

#[tokio::test]
async fn entries_are_listed_and_removed() {
    let (_folder, path) = folder();
    let disk = opened(&path, 16 * MIB).await;
    for n in 0..1_500 {
        put(&disk, n, noise(n, 20)).await;
    }
    disk.keeper().ask(key(9), Waiting::Put(Bytes::from_static(b"rubbish"))).unwrap();
    drop(disk);
    let open = || DiskEntries::open(DiskConfig::new(&path, 16 * MIB).unwrap()).unwrap();
    let mut entries = open();
    assert_eq!(entries.count().await.unwrap(), 1_500);
    let mut seen = Vec::new();
    while let Some(page) = entries.next().await.unwrap() {
        seen.extend(page);
    }
    assert_eq!(seen.len(), 1_500);
    let unreadable: Vec<_> =
        seen.iter().filter(|entry| entry.stored.is_none()).map(|entry| entry.key).collect();
    assert_eq!(unreadable, [key(9)]);
    assert_eq!(seen.iter().filter_map(|entry| Some(entry.stored?.length)).collect::<Vec<_>>(), [20; 1_499]);
    assert_eq!(entries.get(&key(3)).await.unwrap().unwrap().value, noise(3, 20));
    assert_eq!(entries.remove(&seen[..2]).await.unwrap(), 2);
    assert_eq!(entries.remove(&seen[1..4]).await.unwrap(), 2, "one of the three has gone before");
    drop(entries);
    assert_eq!(open().count().await.unwrap(), 1_496);
}

#[tokio::test]
async fn entries_are_listed_and_removed_beside_those_who_use_the_store() {
    let (_folder, path) = folder();
    let disk = Arc::new(opened(&path, 16 * MIB).await);
    for n in 0..1_500 {
        put(&disk, n, noise(n, 20)).await;
    }
    let mut entries = disk.entries();
    let mut seen = Vec::new();
    while let Some(page) = entries.next().await.unwrap() {
        seen.extend(page);
        // Who uses the store meanwhile is not in the way.
        put(&disk, 10_000 + seen.len() as u64, Bytes::new()).await;
    }
    let mut old: Vec<_> =
        seen.iter().filter(|entry| entry.stored.is_some_and(|stored| stored.length == 20)).cloned().collect();
    assert_eq!(old.len(), 1_500, "also what had not been written yet when the walk began");
    assert_eq!(entries.get(&key(3)).await.unwrap().unwrap().value, noise(3, 20));
    let kept = old.split_off(1_000);
    assert_eq!(entries.remove(&old[..10]).await.unwrap(), 10);
    assert_eq!(entries.remove(&old).await.unwrap(), 990, "ten have gone before");
    assert!(entries.get(&old[0].key).await.unwrap().is_none());
    assert!(entries.get(&kept[0].key).await.unwrap().is_some());
    drop((entries, disk));
    let mut after = DiskEntries::open(DiskConfig::new(&path, 16 * MIB).unwrap()).unwrap();
    assert!(after.count().await.unwrap() >= 500);
    for entry in &old {
        assert!(after.get(&entry.key).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn what_cannot_be_written_is_not_said_to_be_removed() {
    let (_folder, path) = folder();
    let (first, second) = (opened(&path, 16 * MIB).await, Arc::new(opened(&path, 16 * MIB).await));
    put(&first, 1, Bytes::new()).await;
    let mut entries = second.entries();
    let said = entries.next().await.unwrap_err().to_string();
    assert!(said.starts_with("another process has "), "{said}");
}

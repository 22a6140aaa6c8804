//! What every [`BlobStore`] must do. Each check gets an empty store and may leave objects in it.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;

use super::{Place, key_of, noise, spooled};
use crate::model::{BlobKey, KeyLayout, Result};
use crate::store::blob::{BlobReader, BlobStore, Spooled};

/// The store under test.
pub type Store = Arc<dyn BlobStore>;

/// What makes an empty store; the second value keeps its server or folder alive.
pub type Factory<'a, G> = &'a dyn Fn() -> Pin<Box<dyn Future<Output = (Store, G)> + 'a>>;

/// Sizes around every limit of the stores: empty, one piece, one part, several parts with a short
/// last one.
const SIZES: [usize; 9] = [0, 1, 4096, 65_536, 300_000, (5 << 20) - 1, 5 << 20, (5 << 20) + 1, (11 << 20) + 17];

/// Runs every check, each on a store of its own, and names the one that fails.
pub async fn run<G>(factory: Factory<'_, G>) {
    macro_rules! checks {
        ($($check:ident)*) => {$(
            let (store, keep) = factory().await;
            eprintln!("blob contract: {} on {}", stringify!($check), store.kind());
            $check(store).await;
            drop(keep);
        )*};
    }
    checks! {
        what_is_put_is_read_back
        absence_is_not_an_error
        ranges_are_exact
        putting_again_changes_nothing
        generations_and_layouts_are_apart
        deleting_is_final_and_repeatable
        many_are_deleted_at_once
        listing_pages_through_everything_in_order
        owners_come_and_go_and_are_in_no_listing
        concurrent_puts_of_one_key_leave_it_whole
        a_dropped_put_leaves_nothing_or_everything
        a_dropped_reader_does_no_harm
        the_store_is_usable_from_other_runtimes
    }
}

fn body(seed: u64, len: usize, place: Place) -> (Spooled, Vec<u8>) {
    let bytes = noise(seed, len);
    (spooled(&bytes, place), bytes)
}

async fn put(store: &Store, body: &Spooled) -> BlobKey {
    let key = key_of(&body.info());
    put_as(store, &key, body).await;
    key
}

async fn put_as(store: &Store, key: &BlobKey, body: &Spooled) {
    ok(store.put(key, &body.bytes, &body.info()).await, "put");
}

fn ok<T>(result: Result<T>, what: &str) -> T {
    result.unwrap_or_else(|error| panic!("{what}: {error:?}"))
}

async fn collect(reader: BlobReader) -> Vec<u8> {
    let size = reader.size;
    let mut all = Vec::new();
    let mut stream = reader.stream;
    while let Some(piece) = stream.next().await {
        all.extend_from_slice(&ok(piece, "stream"));
    }
    assert_eq!(all.len() as u64, size, "the promised size and the number of bytes differ");
    all
}

async fn read(store: &Store, key: &BlobKey) -> Option<Vec<u8>> {
    match ok(store.open(key, None).await, "open") {
        Some(reader) => Some(collect(reader).await),
        None => None,
    }
}

async fn all_names(store: &Store, limit: usize) -> (Vec<(BlobKey, u64)>, Vec<String>) {
    let (mut blobs, mut strangers) = (Vec::new(), Vec::new());
    let mut after: Option<String> = None;
    loop {
        let page = ok(store.list(after.as_deref(), limit).await, "list");
        assert!(page.blobs.len() + page.strangers.len() <= limit, "a page is longer than its limit");
        blobs.extend(page.blobs);
        strangers.extend(page.strangers);
        match page.next {
            Some(next) => {
                assert!(after.is_none_or(|after| after < next), "the listing does not go on");
                after = Some(next);
            }
            None => return (blobs, strangers),
        }
    }
}

/// Every size from every place comes back byte for byte and describes itself.
pub async fn what_is_put_is_read_back(store: Store) {
    ok(store.probe().await, "probe");
    for (seed, len) in (0..).zip(SIZES) {
        for (n, place) in (0..).zip([Place::Memory, Place::Pieces(70_001), Place::File]) {
            let (body, bytes) = body(100 * seed + n, len, place);
            let key = put(&store, &body).await;
            let got = read(&store, &key).await;
            assert!(got.as_ref() == Some(&bytes), "{len} bytes from {place:?} were read back differently");
            assert_eq!(ok(store.stat(&key).await, "stat"), Some(body.info()), "{len} bytes from {place:?}");
        }
    }
}

/// An object that is not there is `None` for every question, and an empty listing.
pub async fn absence_is_not_an_error(store: Store) {
    let (body, _) = body(1, 10, Place::Memory);
    let key = key_of(&body.info());
    assert!(ok(store.open(&key, None).await, "open").is_none());
    assert!(ok(store.open(&key, Some(0..1)).await, "open a range").is_none());
    assert!(ok(store.open(&key, Some(0..0)).await, "open an empty range").is_none());
    assert_eq!(ok(store.stat(&key).await, "stat"), None);
    ok(store.delete(&[key]).await, "delete");
    ok(store.delete(&[]).await, "delete nothing");
    let page = ok(store.list(None, 10).await, "list");
    assert!(page.blobs.is_empty() && page.strangers.is_empty() && page.next.is_none());
}

/// A range yields its bytes and no others; one that is not inside the object is an error.
pub async fn ranges_are_exact(store: Store) {
    let (body, bytes) = body(2, 100_000, Place::Memory);
    let key = put(&store, &body).await;
    for range in [0..1, 0..100_000, 99_999..100_000, 5..6, 4095..65_537, 7..7, 0..0] {
        let reader = ok(store.open(&key, Some(range.clone())).await, "open a range");
        let Some(reader) = reader else { panic!("{range:?} of an object that is there is absent") };
        assert_eq!(reader.size, range.end - range.start);
        assert!(collect(reader).await == bytes[range.start as usize..range.end as usize], "{range:?}");
    }
    for range in [100_000..100_001, 99_999..100_001, 200_000..200_010] {
        assert!(store.open(&key, Some(range.clone())).await.is_err(), "{range:?} is outside and was opened");
    }
}

/// The same key and bytes can be put again, whether the first put was seen to succeed or not.
pub async fn putting_again_changes_nothing(store: Store) {
    for len in [1000, 6 << 20] {
        let (body, bytes) = body(3, len, Place::File);
        let key = put(&store, &body).await;
        put(&store, &body).await;
        assert!(read(&store, &key).await == Some(bytes));
        assert_eq!(ok(store.stat(&key).await, "stat"), Some(body.info()));
    }
    assert_eq!(all_names(&store, 10).await.0.len(), 2);
}

/// The same content under another generation or layout is another object.
pub async fn generations_and_layouts_are_apart(store: Store) {
    let (body, bytes) = body(4, 500, Place::Memory);
    let keys: Vec<BlobKey> = [(0, 2), (1, 2), (12, 2), (0, 0), (0, 1), (u64::MAX, 8)]
        .map(|(generation, depth)| BlobKey { digest: body.digest, generation, layout: KeyLayout::new(depth) })
        .into();
    for key in &keys {
        put_as(&store, key, &body).await;
    }
    for (gone, key) in keys.iter().enumerate() {
        ok(store.delete(&[*key]).await, "delete");
        for (n, key) in keys.iter().enumerate() {
            let expected = (n > gone).then(|| bytes.clone());
            assert!(read(&store, key).await == expected, "after {gone} deletions: {key}");
        }
    }
}

/// What was deleted is absent, and deleting it again is fine; it can be put anew.
pub async fn deleting_is_final_and_repeatable(store: Store) {
    let (body, bytes) = body(5, 5000, Place::Memory);
    for _ in 0..2 {
        let key = put(&store, &body).await;
        assert!(read(&store, &key).await == Some(bytes.clone()));
        for _ in 0..2 {
            ok(store.delete(&[key]).await, "delete");
            assert_eq!(ok(store.stat(&key).await, "stat"), None);
            assert!(read(&store, &key).await.is_none());
        }
    }
}

/// One call deletes more objects than one request of any server takes, absent ones among them.
pub async fn many_are_deleted_at_once(store: Store) {
    let bodies: Vec<_> = (0..30).map(|n| body(600 + n, 20, Place::Memory).0).collect();
    let mut keys = Vec::new();
    for body in &bodies {
        keys.push(put(&store, body).await);
    }
    let absent = |n| BlobKey { generation: n, ..keys[0] };
    let doomed: Vec<BlobKey> = keys[..29].iter().copied().chain((1..1100).map(absent)).collect();
    ok(store.delete(&doomed).await, "delete");
    let left: Vec<_> = all_names(&store, 100).await.0.into_iter().map(|(key, _)| key).collect();
    assert_eq!(left, [keys[29]]);
}

/// Pages of any length show every object once, ascending, with its size.
pub async fn listing_pages_through_everything_in_order(store: Store) {
    let mut expected = BTreeSet::new();
    for n in 0..25 {
        let (body, _) = body(700 + n, n as usize, Place::Memory);
        let mut key = key_of(&body.info());
        if n % 3 == 0 {
            key.generation = n + 1;
        }
        put_as(&store, &key, &body).await;
        expected.insert((key.to_string(), n));
    }
    let expected: Vec<_> = expected.into_iter().collect();
    for limit in [1, 3, 24, 25, 26, 5000] {
        let (blobs, strangers) = all_names(&store, limit).await;
        let got: Vec<_> = blobs.into_iter().map(|(key, size)| (key.to_string(), size)).collect();
        assert_eq!(got, expected, "pages of {limit}");
        assert!(strangers.is_empty());
    }
    // A start that is no object's name, in the middle.
    let middle = format!("{}~", expected[9].0);
    let page = ok(store.list(Some(&middle), 5000).await, "list");
    let got: Vec<_> = page.blobs.into_iter().map(|(key, size)| (key.to_string(), size)).collect();
    assert_eq!(got, expected[10..]);
}

/// Many put the same content under the same key at once: it is whole during and after.
pub async fn owners_come_and_go_and_are_in_no_listing(store: Store) {
    let (one, other) = ("ab".repeat(16), "cd".repeat(16));
    assert!(ok(store.owners().await, "owners").is_empty());
    ok(store.remove_owner(&one).await, "remove an owner that is none");
    for owner in [&other, &one, &one] {
        ok(store.add_owner(owner).await, "add an owner");
    }
    let mut owners = ok(store.owners().await, "owners");
    owners.sort();
    assert_eq!(owners, [one.clone(), other.clone()]);
    let key = put(&store, &body(7, 10, Place::Memory).0).await;
    let page = ok(store.list(None, 10).await, "list");
    assert_eq!(page.blobs, [(key, 10)]);
    assert_eq!(page.strangers, [""; 0]);
    ok(store.remove_owner(&other).await, "remove an owner");
    assert_eq!(ok(store.owners().await, "owners"), [one]);
}

async fn concurrent_puts_of_one_key_leave_it_whole(store: Store) {
    for len in [20_000, 6 << 20] {
        let (body, bytes) = body(8, len, Place::File);
        let key = put(&store, &body).await;
        let puts = (0..6).map(|_| put(&store, &body));
        let reads = async {
            for _ in 0..10 {
                assert!(read(&store, &key).await.as_ref() == Some(&bytes), "read while it was put again");
            }
        };
        futures_util::future::join(futures_util::future::join_all(puts), reads).await;
        assert!(read(&store, &key).await == Some(bytes));
    }
}

/// A put that is dropped at any moment leaves no object or the whole object.
pub async fn a_dropped_put_leaves_nothing_or_everything(store: Store) {
    for len in [100_000, 6 << 20] {
        for micros in [0, 50, 500, 2_000, 5_000, 10_000, 20_000, 40_000] {
            let (body, bytes) = body(900 + micros, len, Place::File);
            let (key, info) = (key_of(&body.info()), body.info());
            let put = store.put(&key, &body.bytes, &info);
            // Whether it was done in time is of no interest here.
            drop(tokio::time::timeout(Duration::from_micros(micros), put).await);
            let found = read(&store, &key).await;
            assert!(found.is_none() || found.as_ref() == Some(&bytes), "part of an object after {micros} us");
            put_as(&store, &key, &body).await;
            assert!(read(&store, &key).await == Some(bytes), "put after a dropped put");
        }
    }
}

/// A reader that is dropped half-way leaves the object and the store as they were.
pub async fn a_dropped_reader_does_no_harm(store: Store) {
    let (body, bytes) = body(10, 3 << 20, Place::File);
    let key = put(&store, &body).await;
    for _ in 0..20 {
        let reader = ok(store.open(&key, None).await, "open");
        let Some(mut reader) = reader else { panic!("an object that was put is absent") };
        assert!(reader.stream.next().await.is_some());
    }
    assert!(read(&store, &key).await == Some(bytes));
}

/// Every actix arbiter is a runtime of its own, and each may end while the store lives on.
pub async fn the_store_is_usable_from_other_runtimes(store: Store) {
    let (body, bytes) = body(11, 200_000, Place::File);
    let key = put(&store, &body).await;
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (store, body, bytes) = (store.clone(), body.bytes.clone(), bytes.clone());
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let runtime = runtime.unwrap_or_else(|error| panic!("no runtime: {error}"));
                runtime.block_on(async {
                    assert!(read(&store, &key).await == Some(bytes));
                    let info = ok(store.stat(&key).await, "stat");
                    let Some(info) = info else { panic!("an object that was put is absent") };
                    ok(store.put(&key, &body, &info).await, "put");
                });
            })
        })
        .collect();
    for thread in threads {
        while !thread.is_finished() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(thread.join().is_ok(), "a thread failed");
    }
    assert!(read(&store, &key).await == Some(bytes));
}

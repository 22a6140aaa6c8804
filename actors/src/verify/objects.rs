//! Walking the listing of the content store beside the contents, in the order of digests.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::model::{BlobKey, Digest, KeyLayout, Result};
use crate::patience::patiently;
use crate::store::blob::BlobStore;

/// Names asked for at once.
const PAGE_NAMES: usize = 1000;

/// Looks for objects in listings that are each walked once. Names of one layout have the order of digests, names of
/// several have not: so each layout in use has a listing of its own, in which the others are passed over.
pub(crate) struct Walk {
    store: Arc<dyn BlobStore>,
    layouts: HashMap<u8, Cursor>,
}

struct Cursor {
    layout: KeyLayout,
    ahead: VecDeque<(BlobKey, u64)>,
    after: Option<String>,
    is_done: bool,
}

impl Walk {
    pub(crate) fn new(store: Arc<dyn BlobStore>) -> Self {
        Self { store, layouts: HashMap::new() }
    }

    /// The size of an object, as it is listed; `None` when it is not. Digests are to be asked for in order.
    pub(crate) async fn size_of(&mut self, key: &BlobKey) -> Result<Option<u64>> {
        let cursor = self.layouts.entry(key.layout.depth()).or_insert_with(|| Cursor::before(key));
        cursor.advance(self.store.as_ref(), key.digest).await?;
        let same = cursor.ahead.iter().take_while(|(ahead, _)| ahead.digest == key.digest);
        Ok(same.into_iter().find(|(ahead, _)| ahead == key).map(|(_, size)| *size))
    }
}

impl Cursor {
    fn before(key: &BlobKey) -> Self {
        // A beginning of the first object's name comes right before it.
        let mut after = BlobKey { generation: 0, ..*key }.to_string();
        after.pop();
        Self { layout: key.layout, ahead: VecDeque::new(), after: Some(after), is_done: false }
    }

    /// Passes over what is before `digest`, and sees to it that all of its objects are in sight.
    async fn advance(&mut self, store: &dyn BlobStore, digest: Digest) -> Result<()> {
        loop {
            while self.ahead.front().is_some_and(|(ahead, _)| ahead.digest < digest) {
                self.ahead.pop_front();
            }
            if self.is_done || self.ahead.back().is_some_and(|(ahead, _)| ahead.digest > digest) {
                return Ok(());
            }
            let page = patiently(async || store.list(self.after.as_deref(), PAGE_NAMES).await).await?;
            let ours = page.blobs.into_iter().filter(|(key, _)| key.layout == self.layout && key.digest >= digest);
            self.ahead.extend(ours);
            self.is_done = page.next.is_none();
            self.after = page.next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::blob::MemoryStore;

    #[actix_rt::test]
    async fn objects_of_all_layouts_and_generations_are_found() {
        let store = MemoryStore::new();
        let mut keys = Vec::new();
        for number in 0..3000u32 {
            let mut bytes = [0; 32];
            bytes[..4].copy_from_slice(&number.wrapping_mul(0x9e37_79b9).to_be_bytes());
            let layout = KeyLayout::new([0, 2, 2, 1][number as usize % 4]);
            keys.push(BlobKey { digest: Digest::from_bytes(bytes), generation: u64::from(number % 13), layout });
        }
        keys.sort_by_key(|key| key.digest);
        for (number, key) in keys.iter().enumerate().filter(|(number, _)| number % 10 != 3) {
            store.insert_raw(&key.to_string(), &vec![1; number % 100]);
            store.insert_raw(&BlobKey { generation: 14, ..*key }.to_string(), b"another");
        }
        store.insert_raw("a stranger", b"x");
        let store: Arc<dyn BlobStore> = Arc::new(store);
        for skip in [0, 1, 1500, 2999] {
            let mut walk = Walk::new(Arc::clone(&store));
            for (number, key) in keys.iter().enumerate().skip(skip) {
                let want = (number % 10 != 3).then_some(number as u64 % 100);
                assert_eq!(walk.size_of(key).await.unwrap(), want, "{number}");
            }
        }
    }
}

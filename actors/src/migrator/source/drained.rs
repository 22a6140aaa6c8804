//! A listing that is read as fast as it comes, whatever whoever wants the names is busy with.
//!
//! An old server looks at its files while it lists them, and its listing breaks off when one goes away before it was looked
//! at. The longer a listing is open, the likelier that is. So names are put into an unnamed file, and read back from there.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::stream::{self, BoxStream};
use futures_util::{StreamExt, TryStreamExt};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::filetracker::{ListedName, NameLines};
use crate::model::{EntryKey, Error, Kind, Namespace, Result};
use crate::store::blocking::BlockingPool;

/// Bytes read back at once: more than any line has.
const PIECE_BYTES: u64 = 256 << 10;

/// Begins each line: what it is.
const NAME: char = '=';
const ODD: char = '!';
/// Between an odd line and the reason.
const BETWEEN: char = '\t';

/// What is in the file so far.
#[derive(Clone, Copy, Default)]
struct Progress {
    bytes: u64,
    is_over: bool,
}

/// The task that reads the listing; it ends with whoever wants the names.
struct Drain(JoinHandle<Result<()>>);

impl Drop for Drain {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The same names, with the same end; they are read from the beginning while the listing is still coming.
pub(in crate::migrator) async fn drained(
    listing: NameLines,
    pool: BlockingPool,
    temp_dir: PathBuf,
) -> Result<NameLines> {
    let file = pool.run(move |_| tempfile::tempfile_in(temp_dir)).await?.map_err(unkept)?;
    let file = Arc::new(file);
    let (progress, seen) = watch::channel(Progress::default());
    let drain = Drain(tokio::spawn(drain(listing, Arc::clone(&file), pool.clone(), progress)));
    Ok(read(Reader { file, pool, seen, drain, at: 0 }))
}

async fn drain(
    mut listing: NameLines,
    file: Arc<File>,
    pool: BlockingPool,
    progress: watch::Sender<Progress>,
) -> Result<()> {
    let outcome = async {
        while let Some(names) = listing.try_next().await? {
            let (lines, file) = (lines(&names), Arc::clone(&file));
            let bytes = lines.len() as u64;
            // The only writer: its place in the file is the end.
            pool.run(move |_| (&*file).write_all(lines.as_bytes())).await?.map_err(unkept)?;
            progress.send_modify(|progress| progress.bytes += bytes);
        }
        Ok(())
    };
    let outcome = outcome.await;
    progress.send_modify(|progress| progress.is_over = true);
    outcome
}

struct Reader {
    file: Arc<File>,
    pool: BlockingPool,
    seen: watch::Receiver<Progress>,
    drain: Drain,
    at: u64,
}

fn read(reader: Reader) -> BoxStream<'static, Result<Vec<ListedName>>> {
    stream::try_unfold(reader, |mut reader| async move {
        let Reader { file, pool, seen, drain, at } = &mut reader;
        let wait = seen.wait_for(|progress| progress.bytes > *at || progress.is_over).await;
        let bytes = wait.map_err(|_| defect())?.bytes;
        let len = (bytes - *at).min(PIECE_BYTES);
        if len == 0 {
            // All that came was read: now how it ended.
            return (&mut drain.0).await.map_err(|_| defect())?.map(|()| None);
        }
        let (file, from) = (Arc::clone(file), *at);
        let piece = pool.run(move |_| {
            let mut piece = vec![0; usize::try_from(len).unwrap_or_default()];
            file.read_exact_at(&mut piece, from).map(|()| piece)
        });
        let piece = piece.await?.map_err(unkept)?;
        let whole = piece.iter().rposition(|byte| *byte == b'\n').ok_or_else(defect)? + 1;
        let text = std::str::from_utf8(&piece[..whole]).map_err(|_| defect())?;
        let names = text.lines().map(listed).collect::<Result<Vec<_>>>()?;
        reader.at += whole as u64;
        Ok(Some((names, reader)))
    })
    .boxed()
}

/// Names have no line ends; what is odd may have anything.
fn lines(names: &[ListedName]) -> String {
    let mut lines = String::new();
    let mut push = |parts: [&str; 2], mark: char| {
        lines.push(mark);
        let [first, second] = parts.map(|part| part.replace(char::is_control, " "));
        lines.push_str(&first);
        if mark == ODD {
            lines.push(BETWEEN);
            lines.push_str(&second);
        }
        lines.push('\n');
    };
    for listed in names {
        match listed {
            ListedName::Name(key) => push([key.name(), ""], NAME),
            ListedName::Odd { line, why } => push([line, why], ODD),
        }
    }
    lines
}

fn listed(line: &str) -> Result<ListedName> {
    if let Some(name) = line.strip_prefix(NAME) {
        let key = EntryKey::parse(Namespace::FILETRACKER, name.as_bytes()).map_err(|_| defect())?;
        return Ok(ListedName::Name(key));
    }
    let odd = line.strip_prefix(ODD).and_then(|rest| rest.split_once(BETWEEN)).ok_or_else(defect)?;
    Ok(ListedName::Odd { line: odd.0.to_owned(), why: odd.1.to_owned() })
}

fn unkept(error: std::io::Error) -> Error {
    Error::io("can't keep the names of the old server", error)
}

fn defect() -> Error {
    Error::new(Kind::Internal, "the names of the old server cannot be read back")
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const BATCHES: usize = 200;
    const BATCH: usize = 1000;

    fn batch(number: usize) -> Vec<ListedName> {
        let name = |at: usize| {
            let name = format!("żółć/{number}/{at}");
            ListedName::Name(EntryKey::parse(Namespace::FILETRACKER, name.as_bytes()).unwrap())
        };
        let odd = ListedName::Odd { line: "two\nlines".into(), why: "a\treason".into() };
        (0..BATCH).map(name).chain([odd]).collect()
    }

    /// A listing that breaks off in the end, and how much of it was taken.
    fn listing(taken: &Arc<AtomicUsize>) -> NameLines {
        let taken = Arc::clone(taken);
        let batches = stream::iter(0..BATCHES).map(move |number| {
            taken.fetch_add(1, Ordering::SeqCst);
            Ok(batch(number))
        });
        batches.chain(stream::iter([Err(Error::new(Kind::Unavailable, "cut off"))])).boxed()
    }

    #[actix_rt::test]
    async fn a_listing_is_taken_to_its_end_before_its_names_are_and_its_names_come_with_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let pool = BlockingPool::start("test", 2, 8).unwrap();
        let taken = Arc::new(AtomicUsize::new(0));
        let mut names = drained(listing(&taken), pool.clone(), dir.path().to_owned()).await.unwrap();
        let first = names.next().await.unwrap().unwrap();
        // Nobody asks for more.
        let wait = async {
            while taken.load(Ordering::SeqCst) < BATCHES {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        assert!(tokio::time::timeout(std::time::Duration::from_secs(60), wait).await.is_ok());
        let (mut found, mut end) = (first, None);
        while let Some(next) = names.next().await {
            match next {
                Ok(next) => found.extend(next),
                Err(error) => end = Some(error),
            }
        }
        assert_eq!(end.unwrap().context(), "cut off");
        assert_eq!(found.len(), BATCHES * (BATCH + 1));
        let odd = ListedName::Odd { line: "two lines".into(), why: "a reason".into() };
        for (number, found) in found.chunks(BATCH + 1).enumerate() {
            assert!(found[..BATCH] == batch(number)[..BATCH] && found[BATCH] == odd, "{number}");
        }
        assert_eq!(dir.path().read_dir().unwrap().count(), 0);
    }
}

//! The file of tokens on the disk.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::table::Table;

/// Longer than any file of tokens.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// What nobody but its owner may do to a file that says who may do what.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// Reads and checks a file. One without tokens is refused: it would keep everybody out.
pub fn load(path: &Path) -> Result<Table, String> {
    let refuse = |reason: &str| format!("{}: {reason}", path.display());
    let failed = |error: io::Error| refuse(&format!("cannot read it: {error}"));
    let file = File::open(path).map_err(failed)?;
    if file.metadata().map_err(failed)?.mode() & WRITABLE_BY_OTHERS != 0 {
        log::warn!("others than its owner may write the file of tokens path={:?}", path.display().to_string());
    }
    let table = parse(file).map_err(|reason| refuse(&reason))?;
    if table.is_empty() { Err(refuse("there is no token in it")) } else { Ok(table) }
}

/// Adds a line. A file that is not there is made, for its owner alone; one that would be refused is left alone.
pub fn append(path: &Path, line: &str) -> Result<(), String> {
    let refuse = |reason: String| format!("{}: {reason}", path.display());
    let failed = |error: io::Error| refuse(format!("cannot write it: {error}"));
    let mut options = OpenOptions::new();
    let mut file = options.read(true).append(true).create(true).mode(0o600).open(path).map_err(failed)?;
    // Two who add at once would both find that a name is free.
    file.lock().map_err(failed)?;
    let mut text = read(&mut file).map_err(&refuse)?;
    let old_length = text.len();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    text.push_str(line);
    text.push('\n');
    Table::parse(&text).map_err(&refuse)?;
    // In one piece: a server that reads it at this moment refuses half a line and keeps what it has.
    file.write_all(&text.as_bytes()[old_length..]).and_then(|()| file.sync_all()).map_err(failed)
}

fn parse(mut file: File) -> Result<Table, String> {
    Table::parse(&read(&mut file)?)
}

fn read(file: &mut File) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("cannot read it: {error}"))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err("the file is too large".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "the file is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::super::token::Token;
    use super::*;

    #[test]
    fn a_new_file_is_its_owners_alone_and_grows_by_lines() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        append(&path, &Token::random().unwrap().line("a", Role::Admin)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.trim_end()).unwrap();
        append(&path, &Token::random().unwrap().line("b", Role::ReadOnly)).unwrap();
        let names: Vec<_> = load(&path).unwrap().entries().iter().map(|entry| entry.name.clone()).collect();
        assert_eq!(names, ["a", "b"]);

        let before = std::fs::read(&path).unwrap();
        assert!(append(&path, &Token::random().unwrap().line("a", Role::Admin)).unwrap_err().contains("line 3"));
        assert_eq!(std::fs::read(&path).unwrap(), before);
    }

    #[test]
    fn files_that_are_absent_empty_or_none_of_tokens_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        assert!(load(&path).unwrap_err().contains("cannot read it"));
        for (bytes, reason) in
            [(&b"# nobody\n"[..], "no token"), (b"\xff", "UTF-8"), (&vec![b'\n'; 2 << 20], "too large")]
        {
            std::fs::write(&path, bytes).unwrap();
            let error = load(&path).unwrap_err();
            assert!(error.contains(reason) && error.contains("tokens"), "{error}");
        }
    }
}

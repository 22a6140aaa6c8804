//! Files that commands write for whoever started them: each is put in its place as a whole, so that whoever reads it sees the
//! old or the new one.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use tempfile::NamedTempFile;

/// Looks whether a file can be put there, before there is anything to put; an error says why not, in one line.
pub fn expect_place(file: &Path) -> Result<(), String> {
    let looked = begin(file).and_then(|waiting| {
        // A full disk takes a name, but no bytes.
        waiting.as_file().write_all(b"{}")
    });
    looked.map_err(|error| error.to_string())
}

/// A file that is going to be put there, and goes away when it is not.
pub fn begin(file: &Path) -> io::Result<NamedTempFile> {
    expect_replaceable(file)?;
    NamedTempFile::new_in(folder_of(file))
}

/// Puts it there, durably.
pub fn put(waiting: NamedTempFile, file: &Path) -> io::Result<()> {
    waiting.as_file().sync_all()?;
    expect_replaceable(file)?;
    waiting.persist(file)?;
    File::open(folder_of(file))?.sync_all()
}

/// The folder that a file is in.
pub fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What is no file would be gone for everybody: a device, a pipe, a link such as /dev/stdout.
fn expect_replaceable(file: &Path) -> io::Result<()> {
    match file.symlink_metadata() {
        Ok(found) if found.is_symlink() => Err(io::Error::other("it is a symbolic link, which is not replaced")),
        Ok(found) if !found.is_file() => Err(io::Error::other("it is there and no file")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn write(file: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut waiting = begin(file)?;
        waiting.write_all(bytes)?;
        put(waiting, file)
    }

    #[test]
    fn files_are_replaced_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| dir.path().join(name);
        for bytes in [&b"one"[..], b"another"] {
            expect_place(&place("report")).unwrap();
            write(&place("report"), bytes).unwrap();
            assert_eq!(fs::read(place("report")).unwrap(), bytes);
        }

        fs::create_dir(place("folder")).unwrap();
        symlink("report", place("link")).unwrap();
        symlink("nothing", place("dangling")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(place("socket")).unwrap();
        for name in ["folder", "link", "dangling", "socket"] {
            let before = place(name).symlink_metadata().unwrap().file_type();
            expect_place(&place(name)).unwrap_err();
            write(&place(name), b"lost").unwrap_err();
            // One that was none when it was looked at.
            put(begin(&place("other")).unwrap(), &place(name)).unwrap_err();
            assert_eq!(place(name).symlink_metadata().unwrap().file_type(), before, "{name}");
        }
        assert_eq!(fs::read(place("report")).unwrap(), b"another");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 5, "nothing is left beside them");
    }
}

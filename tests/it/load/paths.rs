//! The names that clients fight over.

/// Few enough that clients meet on them.
pub const PATHS: usize = 300;

/// Names that begin so are nobody's: they are put to see whether that works.
pub const PROBES: &str = "probe/";

/// The name of a path. Some are longer than an index row of a database can hold.
pub fn name(path: usize) -> String {
    let short = format!("d{}/f{path}", path % 7);
    match path % 30 {
        7 => format!("{}{short}", "a-long-folder-name/".repeat(60)),
        11 => format!("ż{path}/zażółć%2B+~"),
        _ => short,
    }
}

/// A third of the paths is deleted now and then; the others are only put.
pub fn is_deleted_too(path: usize) -> bool {
    path.is_multiple_of(3)
}

/// The name in the target of a request.
pub fn escaped(name: &str) -> String {
    let escape = |byte: u8| match byte {
        b'/' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    name.bytes().map(escape).collect()
}

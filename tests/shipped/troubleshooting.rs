//! Whatever clients may be told for a 503 or 507 stands in the table of operations.md that tells what to do about it.

use std::fs;
use std::path::Path;

use super::{path, read};

/// Told by commands, by work in the background or by tests only, or as the cause of another line.
const NOT_FOR_CLIENTS: [&str; 10] = [
    "another instance cleans now",
    "can't set the lock session up",
    "the connection was closed",
    "the disk of the export does not answer",
    "the file was changed while it was read",
    "the lock session is not kept on one connection by the proxy",
    "the client took too little for too long",
    "somebody else tells the old server of this name",
    "no answer",
    "stopped",
];

/// Texts after one of the kinds of errors, outside of tests.
fn told(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() {
            if name != "testkit" {
                told(&path, found);
            }
            continue;
        }
        if !name.ends_with(".rs") || name == "tests.rs" || name == "failpoint.rs" {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let text = text.split("#[cfg(test)]").next().unwrap();
        for kind in ["Kind::Unavailable, \"", "Kind::Overloaded, \"", "Kind::NoSpace, \""] {
            let texts = text.split(kind).skip(1).filter_map(|rest| rest.split('"').next());
            found.extend(texts.map(str::to_owned));
        }
    }
}

#[test]
fn what_clients_are_told_has_a_line_of_what_to_do() {
    let mut found = Vec::new();
    for folder in ["actors/src", "src/http"] {
        told(&path(folder), &mut found);
    }
    assert!(found.len() > 40, "{found:?}");
    let page = read("docs/operations.md");
    let begins = |text: &str| text.starts_with("the old server");
    found.retain(|text| {
        !NOT_FOR_CLIENTS.contains(&text.as_str()) && !begins(text) && !page.contains(&format!("`{text}`"))
    });
    assert!(found.is_empty(), "docs/operations.md, Troubleshooting, lacks {found:#?}");
}

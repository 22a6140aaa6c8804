//! The image's start command, as it is written, in a root of its own.
//!
//! No image is built: the root holds what the Dockerfile copies and the libraries that the program is linked with, and
//! nothing else. It is mounted read-only but for the volume, in namespaces of its own (mounts, processes, network), which
//! end with the test. As root the server runs as the image's user; as anybody else that user is one of a namespace of
//! users. Where a machine has no such namespaces for its users, the test fails: run it as root.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Command;

use crate::dockerfile::Image;
use crate::{binary, path};

/// Longer than start, requests and drain together.
const TIMEOUT: &str = "240";

/// Copies a file to the same place below the root, links followed.
fn bring(root: &Path, file: &str) {
    copy(Path::new(file), &root.join(file.trim_start_matches('/')));
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    fs::copy(from, to).unwrap_or_else(|error| panic!("{from:?}: {error}"));
}

/// The libraries of a program, by their paths.
fn libraries(program: &Path) -> Vec<String> {
    let told = Command::new("ldd").arg(program).output().unwrap();
    assert!(told.status.success(), "ldd: {}", String::from_utf8_lossy(&told.stderr));
    let told = String::from_utf8(told.stdout).unwrap();
    told.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/'))).map(Into::into).collect()
}

#[test]
fn the_start_command_serves_and_stops_as_written_in_a_clean_read_only_root() {
    let image = Image::of_the_repository();
    let dir = tempfile::tempdir().unwrap();
    let (root, data) = (dir.path().join("root"), dir.path().join("data"));
    let (_, _, target) = image.copies.iter().find(|(_, source, _)| source.ends_with("/s3dedup")).expect("the program");
    copy(&binary(), &root.join(target.trim_start_matches('/')));
    libraries(&binary()).iter().for_each(|file| bring(&root, file));
    for folder in [&image.volumes[0], &image.workdir, "/proc", "/tmp"] {
        fs::create_dir_all(root.join(folder.trim_start_matches('/'))).unwrap();
    }
    fs::create_dir(&data).unwrap();

    let is_root = rustix::process::geteuid().is_root();
    let (user, group) = image.user.split_once(':').expect("USER number:number");
    if is_root {
        chown(&data, Some(user.parse().unwrap()), Some(group.parse().unwrap())).unwrap();
    }
    let mut command = Command::new("timeout");
    command.args(["--kill-after=5", TIMEOUT, "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child"]);
    command.args(if is_root { &[][..] } else { &["--user", "--map-root-user"] });
    command.arg("bash").arg(path("tests/shipped/container.sh"));
    command.args(&image.entrypoint).args(&image.cmd);
    command.env("ROOT", &root).env("DATA", &data).env("VOLUME", &image.volumes[0]);
    command.env("WORKDIR", &image.workdir).env("VARIABLES", image.variables().join("\n"));
    command.env("HEALTHCHECK", image.healthcheck.join("\n"));
    command.env("IS_ROOT", is_root.to_string()).env("USER_ID", user).env("GROUP_ID", group);
    let ended = command.output().expect("timeout, unshare and bash");
    let (told, complained) = (String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success() && told.ends_with("stopped with 0\n"), "{}\n{told}\n{complained}", ended.status);
    assert!(data.join("kv.db").is_file() && data.join("blobs").is_dir(), "it did not write to the volume");
}

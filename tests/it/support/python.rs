//! The real Filetracker client.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The virtual environment that holds the client.
pub fn venv() -> PathBuf {
    std::env::var_os("S3DEDUP_TEST_VENV")
        .expect("S3DEDUP_TEST_VENV must name a virtual environment with filetracker: run the tests with `make test`")
        .into()
}

/// Runs a script of `tests/it/client` with the client's Python; panics with its output if it fails.
pub fn run_script(name: &str, arguments: &[&str]) -> String {
    run_script_with(name, arguments, &[])
}

/// The same with these environment variables.
pub fn run_script_with(name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/client").join(name);
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(venv().join("bin/python"));
    command.arg("-B").arg(script).args(arguments).envs(variables.iter().copied());
    output_of(command, home.path())
}

/// Runs the `filetracker` shell command against `url` with a cache of its own.
pub fn run_shell(url: &str, arguments: &[&str]) -> String {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(venv().join("bin/filetracker"));
    command.args(["-r", url]).args(arguments);
    output_of(command, home.path())
}

fn output_of(mut command: Command, home: &Path) -> String {
    command.env("HOME", home).env("FILETRACKER_DIR", home.join("cache")).env_remove("FILETRACKER_URL");
    command.env("NO_PROXY", "*").env("TMPDIR", home);
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{command:?}: {status}\n{stdout}\n{stderr}");
    stdout.into_owned()
}

//! Reads the Dockerfile: what its last stage says about the image.

use std::fs;
use std::path::Path;

use crate::{path, read};

/// What a container of the image starts with.
#[derive(Debug, Default)]
pub struct Image {
    pub env: Vec<(String, String)>,
    pub user: String,
    pub workdir: String,
    pub volumes: Vec<String>,
    pub entrypoint: Vec<String>,
    pub cmd: Vec<String>,
    pub healthcheck: Vec<String>,
    /// Where the files come to lie: options, source, target.
    pub copies: Vec<(Vec<String>, String, String)>,
    pub labels: String,
}

impl Image {
    pub fn of_the_repository() -> Self {
        Self::parse(&read("Dockerfile"))
    }

    fn parse(text: &str) -> Self {
        let lines: Vec<_> = text.lines().filter(|line| !line.trim_start().starts_with('#')).collect();
        let joined = lines.join("\n").replace("\\\n", " ");
        let mut image = Self::default();
        for line in joined.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let rest = rest.trim();
            match word {
                "FROM" => image = Self::default(),
                "ENV" => image.env.extend(rest.split_whitespace().map(|pair| {
                    let (name, value) = pair.split_once('=').expect("NAME=value");
                    (name.to_owned(), value.to_owned())
                })),
                "USER" => image.user = rest.to_owned(),
                "WORKDIR" => image.workdir = rest.to_owned(),
                "VOLUME" => image.volumes.extend(rest.split_whitespace().map(str::to_owned)),
                "ENTRYPOINT" => image.entrypoint = exec_form(rest),
                "CMD" => image.cmd = exec_form(rest),
                "HEALTHCHECK" => image.healthcheck = exec_form(rest.split_once("CMD ").expect("a command").1),
                "LABEL" => image.labels.push_str(rest),
                "COPY" => {
                    let mut words: Vec<_> = rest.split_whitespace().map(str::to_owned).collect();
                    let target = words.pop().expect("a target");
                    let source = words.pop().expect("a source");
                    image.copies.push((words, source, target));
                }
                "ARG" | "EXPOSE" | "RUN" => {}
                _ => panic!("Dockerfile: this test does not know {word}"),
            }
        }
        image
    }

    /// The variables of a container.
    pub fn variables(&self) -> Vec<String> {
        self.env.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }
}

/// `["a", "b"]`: without a shell in between.
fn exec_form(text: &str) -> Vec<String> {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("not in the exec form: {text}: {error}"))
}

#[test]
fn the_image_runs_the_server_as_nobody_special_and_keeps_everything_in_its_volume() {
    let image = Image::of_the_repository();
    assert_eq!(image.user, "10001:10001");
    assert_eq!(image.volumes, ["/app/data"]);
    assert_eq!([image.entrypoint.clone(), image.cmd.clone()].concat(), ["s3dedup", "server", "--env"]);
    assert_eq!(image.healthcheck, ["s3dedup", "healthcheck"]);
    for (name, value) in image.env.iter().filter(|(name, _)| name == "DATA_DIR" || name.ends_with("_PATH")) {
        assert!(value.starts_with("/app/data"), "{name}={value} is outside the volume");
    }
    let (options, _, _) = image.copies.iter().find(|(_, _, target)| target == "/app").expect("COPY .. /app");
    assert!(options.contains(&"--chown=10001:10001".to_owned()), "the volume would not be the user's: {options:?}");
}

#[test]
fn the_image_is_labelled_with_the_version_of_the_program() {
    let image = Image::of_the_repository();
    for label in ["title", "description", "licenses", "version", "revision"] {
        assert!(image.labels.contains(&format!("org.opencontainers.image.{label}=")), "{label}");
    }
    assert!(read("Dockerfile").contains(&format!("\nARG VERSION={}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn the_build_gets_every_file_that_cargo_needs() {
    let ignored = read(".dockerignore");
    let manifest = read("Cargo.toml");
    let named = manifest.lines().filter_map(|line| line.strip_prefix("path = ")?.split('"').nth(1));
    let top = named.filter_map(|name| name.split('/').next()).chain(["src", "actors", "Cargo.lock", "Cargo.toml"]);
    for name in top.chain(fs::exists(path(".cargo")).unwrap().then_some(".cargo")) {
        assert!(ignored.lines().any(|line| line == format!("!{name}")), ".dockerignore keeps {name} away");
        assert!(Path::new(&path(name)).exists(), "{name}");
    }
}

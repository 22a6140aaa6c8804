//! Texts made from the table: the help's list of variables, the documentation, the sample file.

use std::fmt::Write;

use super::setting::{Fallback, Kind, Setting};
use super::table::SETTINGS;

const INTRODUCTION: &str = "\
# Configuration

<!-- made from src/config by `S3DEDUP_WRITE_DOCS=1 cargo test --lib config::docs`; a test compares -->

Every setting has a key in the configuration file and an environment variable; a few have a flag. Later wins:

1. the default,
2. the file given by `--config` (JSON, TOML or YAML, told by its extension),
3. the environment,
4. flags.

`s3dedup check-config` prints what holds and where each value came from, secrets masked.

- An empty environment variable is as good as none, except `FILETRACKER_PREFIX`, where empty means the root.
- Values are checked wherever they stand, also where a stronger one hides them. An unknown key in a file, a value that is
  not allowed, a missing one that is required: the server ends with one line that names the key, its source and what is
  allowed, and exit code 2. Secrets are never shown.
- Keys for S3 and the password of PostgreSQL can stand in a file of their own (`S3_SECRET_KEY_FILE`, `POSTGRES_PASSWORD_FILE`);
  a line break at its end does not count. Setting both a secret and its file is an error.
- Relative paths start at the working directory.
- In a configuration file texts stand in quotes where the format has them, and `null` means unset.

[`config/s3dedup.toml`](../config/s3dedup.toml) is a sample with every key and its default, [`.env.example`](../.env.example) one with every variable;
[`config/ha.toml`](../config/ha.toml) is one of several instances on PostgreSQL: [high availability](high-availability.md).
";

/// The list of environment variables for `--help`.
pub fn environment_help() -> String {
    let width = SETTINGS.iter().map(|setting| setting.env.len()).max().unwrap_or(0);
    let mut text = String::new();
    for setting in SETTINGS {
        // writing to a String cannot fail
        let _ = writeln!(text, "    {:width$}  {} [{}]", setting.env, setting.help, setting.default_words());
    }
    text
}

/// `docs/configuration.md`.
pub fn markdown() -> String {
    let mut text = INTRODUCTION.to_owned();
    let mut section = None;
    for setting in SETTINGS {
        let (this, _) = setting.section_and_name();
        if section != Some(this) {
            section = Some(this);
            let title = if this.is_empty() { "Top level".to_owned() } else { format!("Section `{this}`") };
            let head = "| key | environment | default | allowed | what it is |\n|---|---|---|---|---|";
            let _ = writeln!(text, "\n## {title}\n\n{head}");
        }
        let flag = setting.flag.map(|flag| format!(", flag `{flag}`")).unwrap_or_default();
        let secret = if setting.secret { " (secret)" } else { "" };
        let default = match setting.default {
            Fallback::Fixed(value) => format!("`{value}`"),
            Fallback::Derived { rule, .. } => rule.to_owned(),
            Fallback::Unset { .. } => "unset".to_owned(),
        };
        let _ = writeln!(
            text,
            "| `{}` | `{}`{flag} | {default} | {} | {}{secret} |",
            setting.key,
            setting.env,
            setting.allowed(),
            setting.help
        );
    }
    text
}

/// `config/s3dedup.toml`: every key, commented out, with its default or an example.
pub fn sample_toml() -> String {
    let mut text = "\
# s3dedup: every setting with its default. Remove the # in front of a key to change it.
# The environment variable in brackets beats this file. More: docs/configuration.md
"
    .to_owned();
    // TOML wants the keys of the top level before all sections
    let top_level_first = |setting: &&Setting| !setting.section_and_name().0.is_empty();
    let mut settings: Vec<_> = SETTINGS.iter().collect();
    settings.sort_by_key(top_level_first);
    let mut section = "";
    let mut seen = vec![""];
    for setting in settings {
        let (this, name) = setting.section_and_name();
        if section != this {
            section = this;
            debug_assert!(!seen.contains(&this), "the settings of a section must stand together");
            seen.push(this);
            let _ = writeln!(text, "\n[{this}]");
        }
        let (value, note) = match setting.default {
            Fallback::Fixed(value) => (value, String::new()),
            Fallback::Derived { rule, example } => (example, format!("; default: {rule}")),
            Fallback::Unset { example } => (example, "; unset by default".to_owned()),
        };
        let value = match setting.kind {
            Kind::Bool | Kind::Integer { .. } => value.to_owned(),
            _ => format!("{value:?}"),
        };
        let _ = writeln!(text, "\n# {} [{}]{note}\n# allowed: {}", setting.help, setting.env, setting.allowed());
        let _ = writeln!(text, "#{name} = {value}");
    }
    text
}

/// `.env.example`: every variable, commented out, with its default or an example.
pub fn sample_env() -> String {
    let mut text = "\
# s3dedup: every variable with its default. Remove the # in front of one to change it. For `docker run --env-file`,
# `env_file:` of compose and `EnvironmentFile=` of systemd: no quotes, a comment has a line of its own.
# More: docs/configuration.md
"
    .to_owned();
    for setting in SETTINGS {
        let (value, note) = match setting.default {
            Fallback::Fixed(value) => (value, String::new()),
            Fallback::Derived { rule, example } => (example, format!("; default: {rule}")),
            Fallback::Unset { example } => (example, "; unset by default".to_owned()),
        };
        let _ = writeln!(text, "\n# {}{note}\n# allowed: {}", setting.help, setting.allowed());
        let _ = writeln!(text, "#{}={value}", setting.env);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Compares with the checked-in file, or writes it when asked to.
    fn same_as_checked_in(path: &str, wanted: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        if std::env::var_os("S3DEDUP_WRITE_DOCS").is_some() {
            std::fs::write(&path, wanted).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == wanted, "{path:?} is stale: S3DEDUP_WRITE_DOCS=1 cargo test --lib config::docs");
    }

    #[test]
    fn the_documentation_is_that_of_the_table() {
        same_as_checked_in("docs/configuration.md", &markdown());
    }

    #[test]
    fn the_sample_is_that_of_the_table() {
        same_as_checked_in("config/s3dedup.toml", &sample_toml());
    }

    #[test]
    fn the_sample_of_variables_is_that_of_the_table() {
        same_as_checked_in(".env.example", &sample_env());
    }

    #[test]
    fn help_names_every_variable() {
        let help = environment_help();
        assert!(SETTINGS.iter().all(|setting| help.contains(setting.env)));
    }
}

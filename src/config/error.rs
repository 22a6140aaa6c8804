//! The one line that a wrong configuration gets.

use std::fmt;

/// Why a configuration was refused: which key, where it came from, what is allowed.
///
/// The text is always one line and never shows the value of a secret setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    key: String,
    source: String,
    problem: String,
    allowed: String,
}

impl ConfigError {
    /// An error for `key`, which came from `source`.
    pub fn new(
        key: impl Into<String>,
        source: impl Into<String>,
        problem: impl Into<String>,
        allowed: impl Into<String>,
    ) -> Self {
        Self { key: key.into(), source: source.into(), problem: problem.into(), allowed: allowed.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, source, problem, allowed } = self;
        // keys and file names are the user's: a line break in one must not make two lines
        f.write_str(&one_line(&format!("{key} (source: {source}): {problem}; allowed: {allowed}")))
    }
}

impl std::error::Error for ConfigError {}

/// The text with every control character escaped.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            line.extend(character.escape_default());
        } else {
            line.push(character);
        }
    }
    line
}

//! The tokens of a file: `NAME ROLE sha256:DIGEST` a line; empty lines and lines that begin with `#` do not count.

use std::collections::HashSet;

use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::Role;
use super::token::{ALGORITHM, digest};

/// More make every request slow, as it is compared with all of them.
const TOKENS_MAX: usize = 1000;
const NAME_LENGTH_MAX: usize = 64;
const NONE: u32 = u32::MAX;

/// Tokens that are known.
#[derive(Debug)]
pub struct Table(Vec<Entry>);

/// One of them.
#[derive(Debug)]
pub struct Entry {
    /// What people call it.
    pub name: String,
    /// What it allows.
    pub role: Role,
    digest: [u8; 32],
}

impl Table {
    /// Reads the text of a file. A reason names the line and shows nothing of it: a token may stand there by mistake.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut entries: Vec<Entry> = Vec::new();
        let (mut names, mut digests) = (HashSet::new(), HashSet::new());
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let refuse = |reason: &str| format!("line {}: {reason}", at + 1);
            let entry = entry(line).map_err(refuse)?;
            if !names.insert(entry.name.clone()) {
                return Err(refuse("the name stands in an earlier line, too"));
            }
            if !digests.insert(entry.digest) {
                return Err(refuse("the token stands in an earlier line, too"));
            }
            entries.push(entry);
            if entries.len() > TOKENS_MAX {
                return Err(refuse("there are more than 1000 tokens"));
            }
        }
        Ok(Self(entries))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of them, in the order of the file.
    pub fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// What is known of this token; `None` when it is none of ours. Takes the same time whichever it is.
    pub fn find(&self, token: &str) -> Option<&Entry> {
        let presented = digest(token);
        let mut found = NONE;
        for (at, entry) in (0_u32..).zip(&self.0) {
            // Every digest is compared to its end, and none ends the search.
            found.conditional_assign(&at, entry.digest.ct_eq(&presented));
        }
        self.0.get(usize::try_from(found).ok()?)
    }
}

fn entry(line: &str) -> Result<Entry, &'static str> {
    let mut words = line.split_ascii_whitespace();
    let (Some(name), Some(role), Some(digest), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err("expected NAME ROLE sha256:DIGEST");
    };
    if !is_name(name) {
        return Err("the name has more than 64 characters, or others than letters, digits, '.', '_' and '-'");
    }
    let role = role.parse()?;
    let wrong = "the third word is not sha256: and 64 hexadecimal digits";
    let digits = digest.strip_prefix(ALGORITHM).ok_or(wrong)?;
    let mut digest = [0; 32];
    hex::decode_to_slice(digits, &mut digest).map_err(|_| wrong)?;
    Ok(Entry { name: name.to_owned(), role, digest })
}

/// Whether a token may be called so.
pub fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !text.is_empty() && text.len() <= NAME_LENGTH_MAX && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::super::token::Token;
    use super::*;

    #[test]
    fn lines_that_are_wrong_are_named_and_not_shown() {
        let good = Token::random().unwrap().line("a", Role::Admin);
        let digest = "0".repeat(64);
        for (wrong, reason) in [
            ("b".to_owned(), "expected NAME"),
            (format!("b admin sha256:{digest} more"), "expected NAME"),
            (format!("b Admin sha256:{digest}"), "role"),
            (format!("b/c admin sha256:{digest}"), "name"),
            (format!("b admin md5:{digest}"), "third word"),
            (format!("b admin sha256:{}", &digest[1..]), "third word"),
            ("b admin s3dedup_secret".to_owned(), "third word"),
            (format!("a admin sha256:{digest}"), "earlier"),
            (good.replacen('a', "b", 1), "earlier"),
        ] {
            let error = Table::parse(&format!("# tokens\n\n{good}\n{wrong}\n")).unwrap_err();
            assert!(error.starts_with("line 4: ") && error.contains(reason), "{wrong}: {error}");
            assert!(!error.contains("secret") && !error.contains(&digest), "{error}");
        }
    }

    fn role_of(table: &Table, token: &str) -> Option<Role> {
        table.find(token).map(|entry| entry.role)
    }

    #[test]
    fn comments_spaces_and_line_ends_of_other_systems_are_fine() {
        let token = Token::random().unwrap();
        let text = format!("\u{20}# x\r\n\r\n\t{}  \r\n", token.line("a", Role::ReadWrite).replace(' ', "\t "));
        let table = Table::parse(&text).unwrap();
        assert_eq!(table.len(), 1);
        assert_eq!(role_of(&table, token.reveal()), Some(Role::ReadWrite));
        assert_eq!(role_of(&table, &token.reveal().to_uppercase()), None);
        assert_eq!(role_of(&Table::parse("").unwrap(), ""), None);
    }

    #[test]
    fn the_first_the_last_and_no_token_are_found_among_many() {
        let tokens: Vec<_> = (0..100).map(|_| Token::random().unwrap()).collect();
        let role = |at: usize| Role::ALL[at % 3];
        let lines = tokens.iter().enumerate().map(|(at, token)| token.line(&format!("t{at}"), role(at)) + "\n");
        let table = Table::parse(&lines.collect::<String>()).unwrap();
        for at in [0, 50, 99] {
            assert_eq!(role_of(&table, tokens[at].reveal()), Some(role(at)));
        }
        assert_eq!(role_of(&table, Token::random().unwrap().reveal()), None);
    }
}

//! Tokens: random, shown once, kept as a digest.
//!
//! A token has 256 random bits, so its plain SHA-256 is as hard to turn back as the token is to guess. The slow and salted
//! hashes that passwords need would add nothing, and cost every request some milliseconds; that is why nobody can choose one.

use std::fmt;

use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};

use super::Role;

/// What every token begins with, so that people and scanners know one when they see it.
const MARK: &str = "s3dedup_";
const RANDOM_BYTES: usize = 32;
/// In a line of the file, what the digest begins with.
pub(super) const ALGORITHM: &str = "sha256:";

/// A token. Neither `Debug` nor `Display` shows it.
pub struct Token(String);

impl Token {
    /// A new one, from the system's generator.
    pub fn random() -> Result<Self, String> {
        let mut bytes = [0; RANDOM_BYTES];
        OsRng.try_fill_bytes(&mut bytes).map_err(|error| format!("no random bytes: {error}"))?;
        Ok(Self(format!("{MARK}{}", hex::encode(bytes))))
    }

    /// The text, to be shown once.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Its line in the file of tokens, without a line break.
    pub fn line(&self, name: &str, role: Role) -> String {
        format!("{name} {role} {ALGORITHM}{}", hex::encode(digest(&self.0)))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// What is kept of a token.
pub(super) fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// A name for a token that was given none.
pub fn random_name() -> Result<String, String> {
    let mut bytes = [0; 4];
    OsRng.try_fill_bytes(&mut bytes).map_err(|error| format!("no random bytes: {error}"))?;
    Ok(format!("token-{}", hex::encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_different_and_not_shown() {
        let (one, other) = (Token::random().unwrap(), Token::random().unwrap());
        assert_ne!(one.reveal(), other.reveal());
        assert_eq!(one.reveal().len(), MARK.len() + 64);
        // Fits into a URL as it is.
        assert!(one.reveal().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
        assert_eq!(format!("{one:?}"), "Token(..)");
        assert!(!one.line("x", Role::Admin).contains(&one.reveal()[MARK.len()..]));
    }
}

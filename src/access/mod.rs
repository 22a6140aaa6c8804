//! Who may do what: tokens and their roles, and the limit of failures.
//!
//! Off until a file of tokens is named. This knows no HTTP: what stands in a request is taken out of it by
//! [`http::guard`](crate::http::guard), which also says what each route needs.

pub mod failures;
pub mod file;
pub mod networks;
pub mod table;
pub mod token;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use self::failures::Failures;
use self::table::Table;

/// What a token allows; each role may do what those before it may.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Role {
    /// Reads of the protocol.
    ReadOnly,
    /// Writes, too.
    ReadWrite,
    /// Also the pages for those who look after the server.
    Admin,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ReadOnly, Self::ReadWrite, Self::Admin];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::ReadWrite => "read-write",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|role| role.name() == text);
        known.ok_or("the role is none of read-only, read-write, admin")
    }
}

/// What a request brought along.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Presented<'a> {
    /// No credentials.
    Nothing,
    /// Credentials that cannot be understood.
    Malformed,
    /// This token, which may be none.
    Token(&'a str),
}

/// Why a request is refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// It has no token.
    Missing,
    /// Its token is none of ours.
    Unknown,
    /// Its token allows less.
    RoleTooSmall {
        /// What the token allows.
        has: Role,
        /// What the request needs.
        needs: Role,
    },
    /// Its token is none of ours, and there have been too many of these from that address.
    TooMany {
        /// When the next failure is answered again.
        retry_after: Duration,
    },
}

/// The tokens of this server, and who failed to show one. Clones are the same one.
#[derive(Clone, Default)]
pub struct Access(Option<Arc<Guarded>>);

struct Guarded {
    path: PathBuf,
    table: RwLock<Arc<Table>>,
    failures: Failures,
}

impl Access {
    /// Everybody may do everything.
    pub fn open() -> Self {
        Self::default()
    }

    /// Asks for the tokens of this file; an address may fail so often a minute, 0 for any number.
    pub fn with_tokens(path: PathBuf, failures_per_minute: u32) -> Result<Self, String> {
        let table = RwLock::new(Arc::new(file::load(&path)?));
        Ok(Self(Some(Arc::new(Guarded { path, table, failures: Failures::new(failures_per_minute) }))))
    }

    /// Whether tokens are asked for.
    pub fn is_guarded(&self) -> bool {
        self.0.is_some()
    }

    /// How many tokens there are.
    pub fn tokens(&self) -> usize {
        self.0.as_ref().map_or(0, |guarded| guarded.table().len())
    }

    /// What people call this token, if it is one of ours.
    pub fn name_of(&self, token: &str) -> Option<String> {
        self.0.as_ref()?.table().find(token).map(|entry| entry.name.clone())
    }

    /// Reads the file again. When it is bad nothing changes, and the reason is one line.
    pub fn reload(&self) -> Result<(), String> {
        let Some(guarded) = &self.0 else { return Ok(()) };
        let table = Arc::new(file::load(&guarded.path)?);
        *guarded.table.write().unwrap_or_else(PoisonError::into_inner) = table;
        Ok(())
    }

    /// Whether what was presented allows what needs `needs`. Only a token that is none of ours counts as a failure of its
    /// sender: a good one passes whatever others at the same address did, and tokens cannot be guessed.
    pub fn check(&self, needs: Role, presented: Presented<'_>, sender: IpAddr) -> Result<(), Refusal> {
        let Some(guarded) = &self.0 else { return Ok(()) };
        let role = match presented {
            Presented::Nothing => return Err(Refusal::Missing),
            Presented::Malformed => None,
            Presented::Token(token) => guarded.table().find(token).map(|entry| entry.role),
        };
        match role {
            Some(has) if has >= needs => Ok(()),
            Some(has) => Err(Refusal::RoleTooSmall { has, needs }),
            None => match guarded.failures.note(sender, Instant::now()) {
                Ok(()) => Err(Refusal::Unknown),
                Err(retry_after) => Err(Refusal::TooMany { retry_after }),
            },
        }
    }
}

impl Guarded {
    fn table(&self) -> Arc<Table> {
        Arc::clone(&self.table.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::token::Token;
    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn guarded(tokens: &[(&Token, Role)], failures_per_minute: u32) -> (tempfile::TempDir, Access) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens");
        for (at, (token, role)) in tokens.iter().enumerate() {
            file::append(&path, &token.line(&format!("t{at}"), *role)).unwrap();
        }
        let access = Access::with_tokens(path, failures_per_minute).unwrap();
        (dir, access)
    }

    #[test]
    fn each_role_may_do_what_those_before_it_may() {
        let tokens: Vec<_> = Role::ALL.into_iter().map(|role| (Token::random().unwrap(), role)).collect();
        let (_dir, access) = guarded(&tokens.iter().map(|(token, role)| (token, *role)).collect::<Vec<_>>(), 0);
        for (token, has) in &tokens {
            for needs in Role::ALL {
                let answer = access.check(needs, Presented::Token(token.reveal()), HERE);
                assert_eq!(answer.is_ok(), *has >= needs, "{has} {needs}");
                assert!(answer.is_ok() || answer == Err(Refusal::RoleTooSmall { has: *has, needs }));
            }
        }
        assert_eq!(access.check(Role::ReadOnly, Presented::Nothing, HERE), Err(Refusal::Missing));
        assert_eq!(access.check(Role::ReadOnly, Presented::Token(""), HERE), Err(Refusal::Unknown));
    }

    #[test]
    fn a_good_token_passes_after_failures_of_others_at_its_address() {
        let token = Token::random().unwrap();
        let (_dir, access) = guarded(&[(&token, Role::Admin)], 2);
        let wrong = || access.check(Role::ReadOnly, Presented::Token("wrong"), HERE);
        assert_eq!((wrong(), wrong()), (Err(Refusal::Unknown), Err(Refusal::Unknown)));
        assert!(matches!(wrong(), Err(Refusal::TooMany { .. })));
        assert!(matches!(access.check(Role::Admin, Presented::Malformed, HERE), Err(Refusal::TooMany { .. })));
        assert_eq!(access.check(Role::Admin, Presented::Nothing, HERE), Err(Refusal::Missing));
        assert_eq!(access.check(Role::Admin, Presented::Token(token.reveal()), HERE), Ok(()));
    }

    #[test]
    fn a_bad_new_file_keeps_the_old_tokens() {
        let (old, new) = (Token::random().unwrap(), Token::random().unwrap());
        let (dir, access) = guarded(&[(&old, Role::Admin)], 0);
        let path = dir.path().join("tokens");
        let may = |token: &Token| access.check(Role::Admin, Presented::Token(token.reveal()), HERE).is_ok();
        std::fs::write(&path, new.line("new", Role::Admin) + "\nnonsense\n").unwrap();
        assert!(access.reload().unwrap_err().contains("line 2"));
        assert!(may(&old) && !may(&new));
        std::fs::write(&path, new.line("new", Role::Admin)).unwrap();
        access.reload().unwrap();
        assert!(!may(&old) && may(&new));
    }
}

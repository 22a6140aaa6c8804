//! Where an old server is.

use std::fmt;

use reqwest::Url;

use super::names::encoded;
use crate::model::{Error, Kind, Result};

/// The URL that endpoints are appended to.
#[derive(Clone)]
pub(super) struct Address {
    url: Url,
}

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self> {
        // Neither the text nor the parser's error is shown: there may be a password in it.
        let wrong = |what: &str| Error::new(Kind::Invalid, format!("the URL of the old server {what}"));
        let mut url = Url::parse(text.trim()).map_err(|error| wrong(&format!("is none: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
            return Err(wrong("must begin with http:// or https:// and a host"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(wrong("must have neither a query nor a fragment"));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(Self { url })
    }

    /// An endpoint, such as `version/`; `query` is encoded already.
    pub(super) fn endpoint(&self, endpoint: &str, query: Option<&str>) -> Url {
        let mut url = self.url.clone();
        let path = format!("{}/{endpoint}", self.url.path().trim_end_matches('/'));
        url.set_path(&path);
        url.set_query(query);
        url
    }

    /// The URL of a file.
    pub(super) fn file(&self, name: &str, query: Option<&str>) -> Url {
        self.endpoint(&format!("files/{}", encoded(name)), query)
    }

    /// Where a redirection of a file leads. An old server in its own migration mode puts the name into the address without
    /// encoding it, so that the name is recognised and encoded here.
    pub(super) fn redirected(&self, from: &Url, location: &[u8], name: &str) -> Option<Url> {
        let plain = location.strip_suffix(name.as_bytes()).filter(|base| base.ends_with(b"/files/"));
        let mut target = match plain {
            Some(base) => from.join(&format!("{}{}", std::str::from_utf8(base).ok()?, encoded(name))).ok()?,
            None => from.join(std::str::from_utf8(location).ok()?).ok()?,
        };
        if !matches!(target.scheme(), "http" | "https") {
            return None;
        }
        if target.origin() == self.url.origin() && target.username().is_empty() && target.password().is_none() {
            let _ = target.set_username(self.url.username());
            let _ = target.set_password(self.url.password());
        }
        Some(target)
    }

    /// Whether the server is this machine, to which no proxy leads.
    pub(super) fn is_loopback(&self) -> bool {
        self.url.host_str().is_some_and(|host| host == "localhost" || host == "[::1]" || host.starts_with("127."))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = self.url.clone();
        if !shown.username().is_empty() || shown.password().is_some() {
            let _ = shown.set_password(None);
            let _ = shown.set_username("***");
        }
        f.write_str(shown.as_str().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_appended_and_names_encoded() {
        for (base, wanted) in [
            ("http://old:9999", "http://old:9999/files/a%20b/%C5%BC"),
            ("http://old:9999/", "http://old:9999/files/a%20b/%C5%BC"),
            ("http://old/ft//", "http://old/ft/files/a%20b/%C5%BC"),
        ] {
            assert_eq!(Address::parse(base).unwrap().file("a b/ż", None).as_str(), wanted);
        }
        let address = Address::parse("http://old/ft").unwrap();
        assert_eq!(
            address.endpoint("list/", Some("last_modified=x%20y")).as_str(),
            "http://old/ft/list/?last_modified=x%20y"
        );
    }

    #[test]
    fn a_password_is_never_shown() {
        let address = Address::parse("http://user:hunter2@old:9999/ft/").unwrap();
        assert_eq!(address.to_string(), "http://***@old:9999/ft");
        for wrong in
            ["user:hunter2@old", "ftp://user:hunter2@old", "http://user:hunter2@old/?x", "http://user:hunter2@"]
        {
            let error = Address::parse(wrong).err().unwrap();
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn redirections_keep_the_name() {
        let address = Address::parse("http://me:secret@old/").unwrap();
        let from = address.file("a b?/ż", None);
        let to = |location: &[u8]| address.redirected(&from, location, "a b?/ż").map(String::from);
        assert_eq!(to("http://other/ft/files/a b?/ż".as_bytes()).unwrap(), "http://other/ft/files/a%20b%3F/%C5%BC");
        assert_eq!(to(b"http://old/files/x").unwrap(), "http://me:secret@old/files/x");
        assert_eq!(to(b"/files/x").unwrap(), "http://me:secret@old/files/x");
        assert_eq!(to(b"file:///etc/passwd"), None);
    }
}

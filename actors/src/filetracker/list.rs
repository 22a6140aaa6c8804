//! Listings: lines as they come, names as clients know them.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use reqwest::{Response, StatusCode};

use super::call::is_explained;
use super::names::{encoded, unmangled};
use super::{OldServer, Protocol, dates};
use crate::model::{EntryKey, Error, Kind, NAME_BYTES_MAX, Namespace, Result, Stamp};

/// Each byte of a name may be listed as two; longer lines are no names.
const LINE_BYTES_MAX: usize = 2 * NAME_BYTES_MAX;
/// Names handed on at once.
const NAMES_MAX: usize = 1000;

/// A line of a listing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum ListedName {
    /// A file, by its full name.
    Name(EntryKey),
    /// A file that has no name here.
    Odd {
        /// The line, or its beginning, as the server wrote it.
        line: String,
        /// Why no client can ask for it here.
        why: String,
    },
}

/// Names in no order, some at a time.
pub type NameLines = BoxStream<'static, Result<Vec<ListedName>>>;

impl OldServer {
    /// Names below `directory` (empty for all) with versions up to `not_after`; `None` when there is no such directory. A
    /// listing that breaks off ends with an error. Version 1 cannot list: [`Kind::Invalid`].
    pub async fn list(&self, directory: &str, not_after: Stamp) -> Result<Option<NameLines>> {
        if self.protocol().await? == Protocol::V1 {
            return Err(Error::new(
                Kind::Invalid,
                "a Filetracker server of version 1 cannot list its files: its directory is needed, or a list of names",
            ));
        }
        let query = format!("last_modified={}", encoded(&dates::print(not_after)));
        let url = self.0.address.endpoint(&format!("list/{}", encoded(directory)), Some(&query));
        let answer = self.call(&url, |url| self.0.clients.listing.get(url)).await?;
        match answer.status() {
            StatusCode::OK => Ok(Some(self.lines(answer, directory))),
            StatusCode::BAD_REQUEST if is_explained(answer.headers()) && !directory.is_empty() => Ok(None),
            _ => Err(self.refusal(&answer)),
        }
    }

    fn lines(&self, answer: Response, directory: &str) -> NameLines {
        let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        let lines = Lines { body: answer.bytes_stream().boxed(), buffer: BytesMut::new(), cut: false, ended: false };
        stream::try_unfold((self.clone(), lines, prefix), |(server, mut lines, prefix)| async move {
            let found = lines.next(&server).await?;
            if found.is_empty() && lines.ended {
                return Ok(None);
            }
            let mut names = Vec::with_capacity(found.len());
            for line in found {
                names.push(server.listed(&prefix, line).await?);
            }
            Ok(Some((names, (server, lines, prefix))))
        })
        .boxed()
    }

    async fn listed(&self, prefix: &str, line: Line) -> Result<ListedName> {
        let odd = |line: &[u8], why: &str| {
            let shown: String = String::from_utf8_lossy(line).chars().take(NAME_BYTES_MAX).collect();
            Ok(ListedName::Odd { line: shown, why: why.to_owned() })
        };
        let bytes = match line {
            Line::Whole(bytes) => bytes,
            Line::TooLong(start) => return odd(&start, "path is too long"),
        };
        let Ok(text) = std::str::from_utf8(&bytes) else { return odd(&bytes, "the line is not valid UTF-8") };
        let parse = |name: &str| EntryKey::parse(Namespace::FILETRACKER, format!("{prefix}{name}").as_bytes());
        match unmangled(text) {
            Ok(name) => match parse(&name) {
                Ok(name) => Ok(ListedName::Name(name)),
                Err(why) => odd(&bytes, &why.to_string()),
            },
            // A server that does not mangle may mean just what it says.
            Err(_) => match parse(text) {
                Ok(name) if self.head(&name).await?.is_some() => Ok(ListedName::Name(name)),
                _ => odd(&bytes, "path is not valid UTF-8"),
            },
        }
    }
}

enum Line {
    Whole(Bytes),
    /// Its beginning.
    TooLong(Bytes),
}

struct Lines {
    body: BoxStream<'static, reqwest::Result<Bytes>>,
    buffer: BytesMut,
    /// Whether the line in the buffer was too long: its beginning has been handed out.
    cut: bool,
    ended: bool,
}

impl Lines {
    /// The next lines, as many as are there; none at the end.
    async fn next(&mut self, server: &OldServer) -> Result<VecDeque<Line>> {
        let mut found = VecDeque::new();
        while found.is_empty() && !self.ended {
            match self.body.next().await {
                Some(piece) => self.buffer.extend_from_slice(&piece.map_err(|error| server.silent(error))?),
                None => self.ended = true,
            }
            self.take(&mut found);
        }
        if self.ended && (!self.buffer.is_empty() || self.cut) {
            return Err(server.stranger("the listing of the old server broke off in the middle of a line"));
        }
        Ok(found)
    }

    fn take(&mut self, found: &mut VecDeque<Line>) {
        while found.len() < NAMES_MAX.saturating_mul(64) {
            let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') else { break };
            let line = self.buffer.split_to(end).freeze();
            self.buffer.advance(1);
            if !std::mem::take(&mut self.cut) {
                found.push_back(if line.len() > LINE_BYTES_MAX { Line::TooLong(line) } else { Line::Whole(line) });
            }
        }
        if self.buffer.len() > LINE_BYTES_MAX {
            let start = self.buffer.split().freeze();
            if !std::mem::replace(&mut self.cut, true) {
                found.push_back(Line::TooLong(start));
            }
        }
    }
}

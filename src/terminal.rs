//! The line on a terminal that changes while something runs.

use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

/// Columns of a terminal that does not say how many it has.
const COLUMNS: usize = 80;
/// Back to the beginning of the line, and away with it.
const CLEAR: &str = "\r\x1b[K";

/// Whether there is a line that is to go before anything else is written.
static IS_DRAWN: AtomicBool = AtomicBool::new(false);

/// Whether people watch standard error.
pub fn is_watched() -> bool {
    std::io::stderr().is_terminal()
}

/// How many columns a line may take.
pub fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr()).ok();
    let columns = size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0);
    // A character in the last column may break the line.
    columns.unwrap_or(COLUMNS).saturating_sub(1).max(1)
}

/// Draws a line over the last one, as much of it as there is room for.
pub fn draw(line: &str) {
    IS_DRAWN.store(true, Ordering::Relaxed);
    let _ = write!(std::io::stderr(), "{CLEAR}{}", cut(line, columns()));
}

/// Takes the line away.
pub fn clear() {
    let _ = write!(std::io::stderr(), "{}", clearing());
}

/// What takes the line away when it is written to the terminal; empty when there is none.
pub fn clearing() -> &'static str {
    if IS_DRAWN.swap(false, Ordering::Relaxed) { CLEAR } else { "" }
}

/// The beginning of a line that fits into so many columns. Characters beyond ASCII may take two.
fn cut(line: &str, columns: usize) -> &str {
    let mut used = 0;
    for (at, character) in line.char_indices() {
        used += if character.is_ascii() { 1 } else { 2 };
        if used > columns {
            return &line[..at];
        }
    }
    line
}

/// A bar of so many characters.
pub fn bar(done: u64, total: u64, width: u64) -> String {
    let filled = (u128::from(done) * u128::from(width) / u128::from(total.max(1))).min(u128::from(width));
    (0..u128::from(width)).map(|place| if place < filled { '#' } else { '.' }).collect()
}

/// Joins parts of a line, leaving out what matters least until it fits. Each part comes with what it matters: the lowest
/// number is left out first.
pub fn fitted(parts: &[(u8, String)], columns: usize) -> String {
    let mut least = 0;
    loop {
        let kept: Vec<&str> = parts.iter().filter(|(rank, _)| *rank >= least).map(|(_, text)| text.as_str()).collect();
        let line = kept.join(" ");
        if line.chars().count() <= columns || kept.len() <= 1 {
            return line;
        }
        least += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_to_the_columns_whatever_its_characters() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcd", 3), "abc");
        assert_eq!(cut("aż世b", 4), "aż");
    }

    #[test]
    fn a_bar_is_as_full_as_what_is_done() {
        assert_eq!(
            [(0, 4), (1, 4), (4, 4), (9, 4), (0, 0)].map(|(done, total)| bar(done, total, 4)),
            ["....", "#...", "####", "####", "...."]
        );
        assert_eq!(bar(u64::MAX / 2, u64::MAX, 4), "#...");
    }

    #[test]
    fn what_matters_least_goes_first() {
        let parts = [(2, "bar".to_owned()), (0, "rate".to_owned()), (1, "eta".to_owned())];
        assert_eq!(fitted(&parts, 20), "bar rate eta");
        assert_eq!(fitted(&parts, 11), "bar eta");
        assert_eq!(fitted(&parts, 5), "bar");
        assert_eq!(fitted(&parts, 1), "bar");
    }
}

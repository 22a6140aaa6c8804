//! `s3dedup man` and `s3dedup completions`: what a package installs beside the program, made from its own help.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{fs, io};

use structopt::StructOpt;
use structopt::clap::Shell;

use super::{Cli, complain, help_of, say};
use crate::exit;

#[derive(StructOpt, Debug)]
pub(super) struct CompletionsCommand {
    /// The shell: bash, zsh or fish
    #[structopt(possible_values = &["bash", "zsh", "fish"], hide_possible_values = true)]
    shell: Shell,
}

#[derive(StructOpt, Debug)]
pub(super) struct ManCommand {
    /// Folder for the pages; it is made when it is missing
    #[structopt(value_name = "DIR", parse(from_os_str))]
    folder: PathBuf,
}

pub(super) fn completions(command: &CompletionsCommand) -> u8 {
    say(completions_of(command.shell).trim_end());
    exit::OK
}

pub(super) fn man(command: &ManCommand) -> u8 {
    match write_pages(&command.folder) {
        Ok(()) => exit::OK,
        Err(error) => {
            complain(&format!("s3dedup: cannot write to {}: {error}", command.folder.display()));
            exit::CANNOT_START
        }
    }
}

fn completions_of(shell: Shell) -> String {
    let mut script = Vec::new();
    Cli::clap().gen_completions_to("s3dedup", shell, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

fn write_pages(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    pages().into_iter().try_for_each(|page| fs::write(folder.join(format!("{}.1", page.name)), page.text))
}

struct Page {
    name: String,
    text: String,
}

/// One page for the program, and one for each of its commands.
fn pages() -> Vec<Page> {
    let mut pages = Vec::new();
    let mut open = vec![Vec::<String>::new()];
    while let Some(path) = open.pop() {
        let help = Help::of(&path);
        let inner = help.commands().into_iter().map(|command| [path.as_slice(), &[command]].concat());
        open.extend(inner);
        pages.push(Page { name: page_name(&path), text: help.page(&path) });
    }
    pages
}

fn page_name(path: &[String]) -> String {
    [&["s3dedup".to_owned()], path].concat().join("-")
}

/// The help of a command, in parts.
struct Help {
    about: String,
    sections: Vec<Section>,
    /// What stands after the sections, without a heading.
    notes: Vec<String>,
}

struct Section {
    title: String,
    lines: Vec<String>,
}

impl Help {
    fn of(path: &[String]) -> Self {
        let text = help_of(path);
        // the first line is name and version
        let mut lines = text.lines().skip(1).peekable();
        let mut about = Vec::new();
        while let Some(line) = lines.next_if(|line| !is_title(line)) {
            about.push(line.trim());
        }
        let (mut sections, mut notes) = (Vec::<Section>::new(), Vec::new());
        for line in lines {
            if is_title(line) {
                sections.push(Section { title: line.trim_end_matches(':').to_owned(), lines: Vec::new() });
            } else if line.is_empty() || line.starts_with(' ') {
                if let Some(section) = sections.last_mut() {
                    section.lines.push(line.trim_end().to_owned());
                }
            } else {
                notes.push(line.to_owned());
            }
        }
        Self { about: about.join(" ").trim().to_owned(), sections, notes }
    }

    /// The names of the commands below this one.
    fn commands(&self) -> Vec<String> {
        let listed = self.sections.iter().filter(|section| section.title == "SUBCOMMANDS");
        listed
            .flat_map(|section| items(&section.lines))
            .filter(|(name, _)| name != "help")
            .map(|(name, _)| name)
            .collect()
    }

    fn page(&self, path: &[String]) -> String {
        let name = page_name(path);
        let mut text = String::new();
        // writing to a String cannot fail
        let _ = writeln!(text, ".\\\" made by `s3dedup man`");
        let _ = writeln!(
            text,
            ".TH {} 1 \"\" \"s3dedup {}\" \"s3dedup\"",
            name.to_uppercase().replace('-', "\\-"),
            env!("CARGO_PKG_VERSION")
        );
        let _ = writeln!(text, ".SH NAME\n{} \\- {}", escaped(&name), escaped(self.about.trim_end_matches('.')));
        for section in &self.sections {
            match section.title.as_str() {
                "USAGE" => {
                    let _ = writeln!(text, ".SH SYNOPSIS\n.nf");
                    write_as_it_is(&mut text, &section.lines);
                    let _ = writeln!(text, ".fi\n.SH DESCRIPTION\n{}", escaped(&self.about));
                    for note in &self.notes {
                        let _ = writeln!(text, "{}", escaped(note));
                    }
                }
                "EXAMPLES" | "CONFIGURATION" => {
                    let _ = writeln!(text, ".SH {}\n.nf", section.title);
                    write_as_it_is(&mut text, &section.lines);
                    let _ = writeln!(text, ".fi");
                }
                title => {
                    let title = if title == "SUBCOMMANDS" { "COMMANDS" } else { title };
                    let _ = writeln!(text, ".SH \"{}\"", escaped(title));
                    for (term, meaning) in items(&section.lines) {
                        let _ = writeln!(text, ".TP\n.B {}\n{}", escaped(&term), escaped(&meaning));
                    }
                }
            }
        }
        let above = path.split_last().map(|(_, above)| page_name(above));
        let below = self.commands().into_iter().map(|command| format!("{name}-{command}"));
        let others: Vec<_> = above.into_iter().chain(below).map(|name| format!(".BR {} (1)", escaped(&name))).collect();
        if !others.is_empty() {
            let _ = writeln!(text, ".SH \"SEE ALSO\"\n{}", others.join(",\n"));
        }
        text
    }
}

/// `OPTIONS:` and its like; a sentence may end with a colon, too, but is not written in capitals.
fn is_title(line: &str) -> bool {
    let words = line.strip_suffix(':').unwrap_or("").split(" [").next().unwrap_or("");
    !words.is_empty() && words.chars().all(|letter| letter.is_ascii_uppercase() || letter == ' ')
}

/// A list of two columns: terms, and what they mean. A line without the gap between them goes on with the one before.
fn items(lines: &[String]) -> Vec<(String, String)> {
    let mut items = Vec::<(String, String)>::new();
    for line in lines.iter().map(|line| line.trim()).filter(|line| !line.is_empty()) {
        match (line.split_once("  "), items.last_mut()) {
            (Some((term, meaning)), _) => items.push((term.to_owned(), meaning.trim().to_owned())),
            (None, Some((_, meaning))) if !line.starts_with('-') => {
                meaning.push(' ');
                meaning.push_str(line);
            }
            (None, _) => items.push((line.to_owned(), String::new())),
        }
    }
    items
}

fn write_as_it_is(text: &mut String, lines: &[String]) {
    for line in lines.iter().filter(|line| !line.is_empty()) {
        let _ = writeln!(text, "{}", escaped(line.strip_prefix("    ").unwrap_or(line)));
    }
}

/// Text that roff shows as it is.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\(rs").replace('-', "\\-");
    // these would be a request at the beginning of a line
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::table::SETTINGS;

    /// The paths of all commands, from the parser itself and not from its help.
    fn commands() -> BTreeSet<String> {
        fn walk(app: &structopt::clap::App<'_, '_>, name: &str, found: &mut BTreeSet<String>) {
            found.insert(name.to_owned());
            for inner in &app.p.subcommands {
                walk(inner, &format!("{name}-{}", inner.get_name()), found);
            }
        }
        let mut found = BTreeSet::new();
        walk(&Cli::clap(), "s3dedup", &mut found);
        found
    }

    #[test]
    fn every_command_has_a_page_with_its_name_and_usage() {
        let pages = pages();
        let named: BTreeSet<_> = pages.iter().map(|page| page.name.clone()).collect();
        assert_eq!(named, commands());
        assert!(named.contains("s3dedup-quarantine-drop"));
        for page in pages {
            assert!(page.text.contains(&format!(".SH NAME\n{} \\- ", escaped(&page.name))), "{}", page.text);
            assert!(page.text.contains(".SH SYNOPSIS\n.nf\ns3dedup"), "{}", page.text);
            assert!(page.text.contains("\n.TP\n.B \\-h, \\-\\-help\n"), "{}", page.text);
        }
    }

    #[test]
    fn the_page_of_the_program_has_all_variables_exit_codes_and_commands() {
        let page = pages().into_iter().find(|page| page.name == "s3dedup").unwrap().text;
        for setting in SETTINGS {
            assert!(page.contains(&format!("\n.B {}\n{}", setting.env, escaped(setting.help))), "{}", setting.env);
        }
        assert!(page.contains("\n.B 70\ncannot go on"), "{page}");
        assert!(page.contains(".SH EXAMPLES\n.nf\ns3dedup  "), "{page}");
        assert!(page.contains(".BR s3dedup\\-verify (1)"), "{page}");
    }

    #[test]
    fn what_roff_would_take_for_a_command_is_shown() {
        assert_eq!(escaped(".TH a\\b --c"), "\\&.TH a\\(rsb \\-\\-c");
    }

    #[test]
    fn pages_are_written_into_a_new_folder() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("man");
        assert_eq!(man(&ManCommand { folder: inside.clone() }), exit::OK);
        assert_eq!(fs::read_dir(&inside).unwrap().count(), commands().len());
        assert_eq!(man(&ManCommand { folder: inside.join("s3dedup.1") }), exit::CANNOT_START);
    }

    #[test]
    fn every_shell_completes_every_command_and_flag() {
        let flags = SETTINGS.iter().filter_map(|setting| setting.flag);
        let flags: Vec<_> = flags.map(|flag| flag.trim_start_matches('-')).collect();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = completions_of(shell);
            let innermost = commands().into_iter().filter_map(|name| Some(name.rsplit_once('-')?.1.to_owned()));
            for word in innermost.chain(flags.iter().map(|&flag| flag.to_owned())) {
                assert!(script.contains(&word), "{shell}: {word}");
            }
        }
    }
}

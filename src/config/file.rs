//! The configuration file: JSON, TOML or YAML, told by its extension.

use std::path::Path;

use config::{ConfigError as ParseError, File, FileFormat, Map, Source, Value, ValueKind};

use super::error::ConfigError;
use super::layer::Layer;
use super::table::SETTINGS;
use super::value::parse_file_value;

const ALLOWED_FILES: &str = "a readable file whose name ends in .json, .toml, .yaml or .yml";

/// Reads and checks a file: every key must be known, every value allowed.
pub fn load(path: &Path) -> Result<Layer, ConfigError> {
    let refuse = |problem: String| ConfigError::new("--config", origin(path), problem, ALLOWED_FILES);
    let format = format_of(path).ok_or_else(|| refuse("the extension names no known format".to_owned()))?;
    let text = std::fs::read_to_string(path).map_err(|error| refuse(format!("cannot read it: {error}")))?;
    let tree = File::from_str(&text, format).collect().map_err(|error| refuse(syntax_problem(format, error)))?;

    let mut layer = Layer::default();
    flatten(&mut layer, &origin(path), "", &tree)?;
    Ok(layer)
}

fn origin(path: &Path) -> String {
    format!("file {}", path.display())
}

fn format_of(path: &Path) -> Option<FileFormat> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "json" => Some(FileFormat::Json),
        "toml" => Some(FileFormat::Toml),
        "yaml" | "yml" => Some(FileFormat::Yaml),
        _ => None,
    }
}

fn flatten(layer: &mut Layer, origin: &str, section: &str, tree: &Map<String, Value>) -> Result<(), ConfigError> {
    // maps have no order: sorted, so that the same file always gets the same error
    let mut entries: Vec<_> = tree.iter().collect();
    entries.sort_by_key(|(name, _)| name.as_str());
    for (name, value) in entries {
        let key = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
        // a name with a dot in it would otherwise pass for a path of the table
        let dotted = name.contains('.');
        if let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key && !dotted) {
            let parsed = parse_file_value(setting, value)
                .map_err(|problem| ConfigError::new(&key, origin, problem, setting.allowed()))?;
            if let Some(parsed) = parsed {
                layer.set(setting.key, origin, parsed);
            }
        } else if children(&key).next().is_some() && !dotted {
            match &value.kind {
                ValueKind::Table(inner) => flatten(layer, origin, &key, inner)?,
                ValueKind::Nil => {}
                _ => {
                    let allowed = format!("a section with {}", words(&key));
                    return Err(ConfigError::new(key, origin, "a value stands where a section is expected", allowed));
                }
            }
        } else {
            return Err(ConfigError::new(key, origin, "unknown key", words(section)));
        }
    }
    Ok(())
}

/// The names that may stand in a section, in the order of the table, with repetitions.
fn children(section: &str) -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().filter_map(move |setting| {
        let rest =
            if section.is_empty() { setting.key } else { setting.key.strip_prefix(section)?.strip_prefix('.')? };
        rest.split('.').next()
    })
}

fn words(section: &str) -> String {
    let mut names: Vec<_> = children(section).collect();
    names.dedup();
    names.join(", ")
}

/// Says where the syntax is broken, and no more: parsers repeat the line, which may hold a secret.
fn syntax_problem(format: FileFormat, error: ParseError) -> String {
    let language = match format {
        FileFormat::Json => "JSON",
        FileFormat::Toml => "TOML",
        _ => "YAML",
    };
    let ParseError::FileParse { cause, .. } = error else {
        return format!("it is not valid {language}");
    };
    let text = cause.to_string();
    let number_after = |word: &str| {
        let rest = &text[text.rfind(word)? + word.len()..];
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        (!digits.is_empty()).then_some(digits)
    };
    match number_after("line ") {
        Some(line) => format!("it is not valid {language} at line {line}"),
        None => format!("it is not valid {language}, or its top level has no keys"),
    }
}

//! Layers of configuration: where values come from, before they are merged.

use std::ffi::OsString;

use config::{ConfigError as MergeError, Map, Source, Value, ValueKind};

use super::error::ConfigError;
use super::setting::{Fallback, Kind, Setting};
use super::table::{SETTINGS, setting};
use super::value::{Parsed, parse_text};

/// Checked values of one origin. Merging is left to the `config` crate, which keeps with every
/// value the origin it came from.
#[derive(Debug, Clone, Default)]
pub struct Layer {
    values: Vec<(&'static str, String, Parsed)>,
}

impl Layer {
    /// Adds a value.
    pub fn set(&mut self, key: &'static str, origin: impl Into<String>, value: Parsed) {
        self.values.push((key, origin.into(), value));
    }

    /// The built-in defaults that follow from nothing else.
    pub fn defaults() -> Result<Self, ConfigError> {
        let mut layer = Self::default();
        for setting in SETTINGS {
            if let Fallback::Fixed(text) = setting.default {
                layer.set_text(setting, "default", text)?;
            }
        }
        Ok(layer)
    }

    /// What the environment says, through `variable`. An empty variable is as good as none, except
    /// where empty is a value.
    pub fn environment(variable: &dyn Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let mut layer = Self::default();
        for setting in SETTINGS {
            let Some(value) = variable(setting.env) else { continue };
            if value.is_empty() && !matches!(setting.kind, Kind::Prefix) {
                continue;
            }
            let origin = environment_origin(setting);
            let Some(text) = value.to_str() else {
                return Err(ConfigError::new(setting.key, origin, "the value is not UTF-8", setting.allowed()));
            };
            layer.set_text(setting, &origin, text)?;
        }
        Ok(layer)
    }

    /// What the command line says: keys of the table and their values.
    pub fn flags(flags: &[(&str, String)]) -> Result<Self, ConfigError> {
        let mut layer = Self::default();
        for (key, text) in flags {
            let Some(setting) = setting(key) else { continue };
            let origin = setting.flag.map_or_else(|| "command line".to_owned(), |flag| format!("flag {flag}"));
            layer.set_text(setting, &origin, text)?;
        }
        Ok(layer)
    }

    fn set_text(&mut self, setting: &'static Setting, origin: &str, text: &str) -> Result<(), ConfigError> {
        let parsed = parse_text(setting, text)
            .map_err(|problem| ConfigError::new(setting.key, origin, problem, setting.allowed()))?;
        self.set(setting.key, origin, parsed);
        Ok(())
    }
}

/// How errors and reports call the variable of a setting.
pub fn environment_origin(setting: &Setting) -> String {
    format!("environment variable {}", setting.env)
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, MergeError> {
        let entry = |(key, origin, parsed): &(&str, String, Parsed)| {
            ((*key).to_owned(), Value::new(Some(origin), ValueKind::from(parsed.clone())))
        };
        Ok(self.values.iter().map(entry).collect())
    }
}
